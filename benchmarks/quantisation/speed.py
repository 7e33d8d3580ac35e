"""Tokens per second and time to the first token of servers that are up, in turns."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.load.bench import Bench, prepare
from benchmarks.load.client.record import Record, write_records
from benchmarks.load.figures.disturbance import MOST_SHARE
from benchmarks.load.rounds import ArmFigure, Turn, arm_figures
from benchmarks.load.run import RunResult
from benchmarks.load.settings import load_bench_settings
from benchmarks.load.workload.arrivals import parse_arrivals
from benchmarks.load.workload.lengths import parse_lengths
from benchmarks.quantisation.figures import Measured, SpeedCell, SpeedFigures
from benchmarks.quantisation.fleet import Say
from benchmarks.quantisation.plan import MIN_REQUESTS_PER_WORKER, ReportPlan
from benchmarks.quantisation.served import Served, spec_of
from benchmarks.server import Server, running
from benchmarks.statistics import Spread, percentile
from benchmarks.turns import rotated

RECORDS_NAME = "requests-speed.jsonl"
_MOST_SECONDS = 3600.0  # of one block, for a server that hardly answers
_TIMEOUT_SECONDS = 900.0  # without a byte of an answer
_WARM_UP_TOKENS = 8
_WARM_UP_SEED = 1_000_000  # its texts are not sent again
_THROUGHPUT, _TTFT = "output_tok_s", "ttft_p50"


def measure_together(
    served: Sequence[Served], servers: Mapping[str, Server], plan: ReportPlan, *, folder: Path, say: Say
) -> SpeedFigures:
    """All servers are up, one under load at a time. Whole rounds alone, as many as fit in the time.

    Raises BenchmarkError.
    """
    blocks, started = _Blocks(served, plan, folder, say), datetime.now(UTC)
    deadline = time.monotonic() + plan.speed_seconds
    benches = {each.name: blocks.warmed_up(each, servers[each.name]) for each in served}
    round_seconds = 0.0
    for number in range(plan.rounds):
        began = time.monotonic()
        if number and began + round_seconds > deadline:
            say(f"speed: no time for the last {plan.rounds - number} of {plan.rounds} rounds")
            break
        for concurrency in plan.concurrency:
            for each in rotated(served, number):
                blocks.measure(each, benches[each.name], concurrency, number)
        round_seconds = time.monotonic() - began
    return figures_of(blocks.turns, served, plan, started=started, together=True)


def measure_apart(served: Sequence[Served], plan: ReportPlan, *, folder: Path, say: Say) -> SpeedFigures:
    """One server at a time, each started anew in every round: where memory does not hold them all.

    Raises BenchmarkError.
    """
    (folder / RECORDS_NAME).unlink(missing_ok=True)
    blocks, started = _Blocks(served, plan, folder, say), datetime.now(UTC)
    for number in range(plan.rounds):
        for each in rotated(served, number):
            spec = spec_of(each, plan, folder=folder, adapter_rank=8)
            say(f"speed: starting {each.title}")
            with running([spec], logs=folder, ready_seconds=plan.ready_seconds) as servers:
                bench = blocks.warmed_up(each, servers[each.name])
                for concurrency in plan.concurrency:
                    blocks.measure(each, bench, concurrency, number)
    return figures_of(blocks.turns, served, plan, started=started, together=False)


def figures_of(
    turns: Sequence[Turn],
    served: Sequence[Served],
    plan: ReportPlan,
    *,
    started: datetime,
    together: bool,
) -> SpeedFigures:
    """Cells by concurrency and server, with ratios of pairs in the same round."""
    baseline = served[0].name
    against = {
        arm_name(each.name, number): arm_name(baseline, number)
        for each in served
        for number in plan.concurrency
    }
    by_arm: dict[str, dict[str, ArmFigure]] = {}
    for figure in arm_figures(turns, "", (_THROUGHPUT, _TTFT), against=against):
        by_arm.setdefault(figure.arm, {})[figure.metric] = figure
    cells = [
        _cell(each.name, concurrency, runs, by_arm[name])
        for concurrency in plan.concurrency
        for each in served
        if (name := arm_name(each.name, concurrency)) in by_arm
        and (runs := [turn.run for turn in turns if turn.arm == name])
    ]
    prompt_tokens = [
        record.prompt_tokens
        for turn in turns
        for record in _answered(turn.run)
        if record.prompt_tokens is not None
    ]
    return SpeedFigures(
        started=started.isoformat(timespec="seconds"),
        rounds=len({turn.round for turn in turns}),
        rounds_wanted=plan.rounds,
        max_tokens=plan.max_tokens,
        prompt_tokens=tuple(sorted({min(prompt_tokens), max(prompt_tokens)})) if prompt_tokens else (),
        baseline=baseline,
        together=together,
        cells=tuple(cells),
        warnings=tuple(_warnings(cells)),
    )


def arm_name(served: str, concurrency: int) -> str:
    """Of one server under one load."""
    return f"{served} @{concurrency}"


class _Blocks:
    """The blocks of one measurement: each is a load on one server, and a line of progress."""

    def __init__(self, served: Sequence[Served], plan: ReportPlan, folder: Path, say: Say) -> None:
        self.turns: list[Turn] = []
        self._plan, self._say = plan, say
        self._records_path = folder / RECORDS_NAME
        self._total = plan.rounds * len(plan.concurrency) * len(served)
        self._started = time.monotonic()

    def warmed_up(self, served: Served, server: Server) -> Bench:
        """A server made ready: kernels and caches have had their first use by load that nobody counts."""
        plan = self._plan
        settings = load_bench_settings(
            url=server.url,
            seconds=_MOST_SECONDS,
            warmup_seconds=0.0,
            timeout_seconds=_TIMEOUT_SECONDS,
            prompt_tokens=str(plan.prompt_tokens),
            answer_tokens=str(plan.max_tokens),
            adapters="none",
            metrics_every_seconds=0.0,
        )
        bench = prepare(settings)
        self._say(f"speed: warming up {served.title}")
        most = max(plan.concurrency)
        short = parse_lengths(str(_WARM_UP_TOKENS), option="--answer-tokens")
        warm_up = replace(
            bench, load=replace(bench.load, answers=short), requests=MIN_REQUESTS_PER_WORKER * most
        )
        warm_up.run(
            f"warm-up of {served.name}",
            parse_arrivals(f"closed:{most}"),
            seed=settings.seed + _WARM_UP_SEED,
        )
        return bench

    def measure(self, served: Served, bench: Bench, concurrency: int, number: int) -> None:
        """One block; its requests are added to the file."""
        time.sleep(self._plan.settle_seconds)
        # All servers get the same texts; the loads of one server get others, for its prefix cache.
        bench = replace(
            bench,
            prompts=replace(bench.prompts, salt=f"@{concurrency}"),
            requests=self._plan.measured_requests(concurrency),
            out_of_step=True,
        )
        name = arm_name(served.name, concurrency)
        run = bench.run(
            f"{name}, round {number + 1}",
            parse_arrivals(f"closed:{concurrency}"),
            seed=bench.settings.seed + number,
        )
        write_records(
            self._records_path,
            run.records,
            append=True,
            contender=served.name,
            concurrency=concurrency,
            round=number,
        )
        self.turns.append(Turn(name, number, run))
        self._tell(served.name, concurrency, number, run)

    def _tell(self, served: str, concurrency: int, number: int, run: RunResult) -> None:
        """How far the speed part is, and about how long it still takes."""
        done = len(self.turns)
        left_seconds = (time.monotonic() - self._started) / done * (self._total - done)
        share = run.client["foreign_cpu_share"]
        busy = f", {share:.0%} of the machine taken by others" if _is_noisy(run) else ""
        self._say(
            f"speed {done}/{self._total}: round {number + 1} c={concurrency} {served}: "
            f"{run.figures[_THROUGHPUT]:.1f} tok/s{busy}; {left_seconds / 60:.1f} min left"
        )


def _cell(
    served: str, concurrency: int, runs: Sequence[RunResult], figures: Mapping[str, ArmFigure]
) -> SpeedCell:
    answered = [record for run in runs for record in _answered(run)]
    ttft = [seconds for record in answered if (seconds := record.ttft_seconds) is not None]
    tpot = [seconds for record in answered if (seconds := record.tpot_seconds) is not None]
    throughput, to_first = figures.get(_THROUGHPUT), figures.get(_TTFT)
    return SpeedCell(
        served=served,
        concurrency=concurrency,
        attempted=sum(run.figures["counts"]["measured"] for run in runs),
        answered=len(answered),
        output_tok_s=_measured(throughput.value if throughput else None),
        ttft_p50_seconds=percentile(ttft, 0.5) if ttft else None,
        ttft_p99_seconds=percentile(ttft, 0.99) if ttft else None,
        tpot_p50_seconds=percentile(tpot, 0.5) if tpot else None,
        throughput_ratio=_measured(throughput.ratio if throughput else None),
        ttft_ratio=_measured(to_first.ratio if to_first else None),
        noisy_blocks=sum(map(_is_noisy, runs)),
        blocks=len(runs),
    )


def _answered(run: RunResult) -> list[Record]:
    return [record for record in run.records if record.ok and run.window.holds(record.scheduled_seconds)]


def _is_noisy(run: RunResult) -> bool:
    return (run.client["foreign_cpu_share"] or 0.0) > MOST_SHARE


def _measured(value: Spread | None) -> Measured | None:
    if value is None:
        return None
    return Measured(value=value.median, low=value.low, high=value.high, count=value.count)


def _warnings(cells: Sequence[SpeedCell]) -> list[str]:
    failed = [
        f"{each.served} at c={each.concurrency}: {each.attempted - each.answered} of {each.attempted} requests "
        "failed; the latencies are of the others"
        for each in cells
        if each.answered < each.attempted
    ]
    noisy, blocks = sum(each.noisy_blocks for each in cells), sum(each.blocks for each in cells)
    if noisy:
        failed.append(
            f"{noisy} of {blocks} blocks ran while something else used more than 5 % of the machine"
        )
    return failed
