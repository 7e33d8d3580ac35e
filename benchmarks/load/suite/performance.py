"""A whole suite: what was asked for, the gateway, the parts, and the result that they make together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from benchmarks.load.bench import check_options, prepare
from benchmarks.load.errors import NothingMeasuredError
from benchmarks.load.figures.slo import parse_slo
from benchmarks.load.numbers_text import whole_numbers
from benchmarks.load.own_gateway import own_gateway, parse_ranks, slot_rank
from benchmarks.load.result_file import measurement_of
from benchmarks.load.run import RunResult
from benchmarks.load.settings import CHURN_FIELDS, BenchSettings
from benchmarks.load.suite.budget import Budget, check_minutes
from benchmarks.load.suite.conduct import Outcome, conduct
from benchmarks.load.suite.parts import Part, parse_parts
from benchmarks.load.suite.result import SuiteResult
from benchmarks.load.suite.stage import Stage
from benchmarks.load.workload.arrivals import MAX_WORKERS
from benchmarks.surroundings import Surroundings, read_surroundings

# The gateway refuses whom it would keep waiting longer than this share of the TTFT that the limits allow.
_WAIT_OF_TTFT = 0.5
_START_SECONDS = 20.0
_TIMEOUT_SECONDS = (
    30.0  # unless told otherwise: one stuck answer must not take the time of the parts that follow
)
_OF_PARTS = (
    "url",
    "arrivals",
    "seconds",
    "warmup_seconds",
    "adapters",
    "adapter_mix",
    "base_share",
    *CHURN_FIELDS,
)


@dataclass(frozen=True, slots=True)
class Wish:
    """Everything that was asked for, checked."""

    settings: BenchSettings
    minutes: float
    parts: tuple[Part, ...]
    base: str
    adapters: int
    ranks: tuple[int, ...]
    concurrency: tuple[int, ...]
    capacity_req_s: float | None
    flags: tuple[str, ...]  # of `hotswap serve`, the last one wins

    @classmethod
    def parse(
        cls,
        settings: BenchSettings,
        *,
        minutes: float,
        parts: str,
        base: str,
        adapters: int,
        ranks: str,
        concurrency: str,
        capacity_req_s: float | None,
        flags: Sequence[str],
    ) -> Wish:
        """Raises LoadOptionError for what means nothing, before anything is started."""
        check_options(settings)
        if "timeout_seconds" not in settings.model_fields_set:
            settings = settings.model_copy(update={"timeout_seconds": _TIMEOUT_SECONDS})
        loops = whole_numbers(concurrency, option="--concurrency", most=MAX_WORKERS)
        chosen = parse_parts(parts, concurrency=len(loops), capacity_req_s=capacity_req_s)
        check_minutes(minutes, [part.need for part in chosen], start_seconds=_START_SECONDS)
        dealt = parse_ranks(ranks)
        own = (
            f"--max-loras={adapters + 1}",  # and the one that is swapped
            f"--max-cpu-loras={max(64, adapters + 2)}",
            f"--max-lora-rank={slot_rank(max(dealt))}",
            f"--max-wait-seconds={_WAIT_OF_TTFT * parse_slo(settings.slo).ttft_seconds:g}",
        )
        return cls(
            settings,
            minutes,
            chosen,
            base,
            adapters,
            dealt,
            loops,
            capacity_req_s,
            (*own, *flags),
        )


def perform(
    wish: Wish,
    budget: Budget,
    *,
    command: str,
    progress: Callable[[dict[str, float]], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
    begin: Callable[[int], None] = lambda _: None,
) -> tuple[SuiteResult, Mapping[str, Sequence[RunResult]], bool]:
    """(result, runs by part, whether it was interrupted).

    Raises NothingMeasuredError when not one part was measured, and what `own_gateway` raises.
    """
    surroundings = read_surroundings()
    began = budget.left_seconds
    with own_gateway(
        wish.base, adapters=wish.adapters, ranks=wish.ranks, more_flags=wish.flags, say=say
    ) as gateway:
        # In the order in which they were made, so that each number of adapters has all ranks in it.
        update = {"url": gateway.url, "adapters": ",".join(gateway.adapters)}
        bench = prepare(wish.settings.model_copy(update=update))
        stage = Stage(gateway, bench, wish.concurrency, wish.capacity_req_s, progress, say)
        outcome = conduct(wish.parts, stage, budget, begin=begin)
        ranks = dict(zip(gateway.adapters, gateway.ranks, strict=True))
        base = gateway.base.name
    if not outcome.done:
        raise NothingMeasuredError(
            "no part was measured: "
            + "; ".join(f"{key}: {reason}" for key, reason in outcome.left_out.items())
        )
    result = _result(wish, outcome, ranks, base, command, surroundings, began - budget.left_seconds)
    return result, {key: measured.runs for key, (_, measured) in outcome.done.items()}, outcome.interrupted


def _result(
    wish: Wish,
    outcome: Outcome,
    ranks: Mapping[str, int],
    base: str,
    command: str,
    surroundings: Surroundings,
    seconds: float,
) -> SuiteResult:
    parts = {
        key: measurement_of(
            key,
            measured.runs,
            command=command,
            target=stage.bench.target,
            load=stage.bench.settings.shown(),
            slo=stage.bench.slo,
            surroundings=surroundings,
            conclusion=measured.conclusion,
        )
        for key, (stage, measured) in outcome.done.items()
    }
    load = {key: value for key, value in wish.settings.shown().items() if key not in _OF_PARTS}
    return SuiteResult(
        command=command,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        minutes=wish.minutes,
        seconds=round(seconds, 1),
        gateway={"base": base, "flags": list(wish.flags), "ranks": ranks},
        load={**load, "concurrency": list(wish.concurrency)},
        capacity_req_s=outcome.capacity_req_s,
        slo=parse_slo(wish.settings.slo).shown(),
        surroundings=asdict(surroundings),
        parts=parts,
        left_out=dict(outcome.left_out),
    )
