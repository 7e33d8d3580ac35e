"""What adapters cost: the base, and traffic mixed over 1, 4, 16, ... adapters, on one server and in turns."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.load.bench import Bench
from benchmarks.load.errors import LoadOptionError
from benchmarks.load.numbers_text import whole_numbers
from benchmarks.load.own_gateway import MAX_ADAPTERS, own_gateway, parse_ranks, slot_rank
from benchmarks.load.rounds import Arm
from benchmarks.load.settings import BenchSettings
from benchmarks.load.workload.arrivals import MAX_WORKERS, parse_arrivals

_LIMITED = "output_tok_s"


@dataclass(frozen=True, slots=True)
class TaxPlan:
    """How many adapters take part in the traffic, and how many requests are under way at once."""

    counts: tuple[int, ...]
    concurrency: tuple[int, ...]

    @property
    def arrivals_text(self) -> str:
        """For the report."""
        return ", ".join(f"closed:{number}" for number in self.concurrency)


@dataclass(frozen=True, slots=True)
class TaxLimit:
    """The least ratio of tokens per second to the base's that is still good, with so many adapters."""

    count: int
    concurrency: int | None  # None: at every one
    ratio: float


def parse_plan(counts: str, concurrency: str) -> TaxPlan:
    """`1,4,16` and `1,32`. Raises LoadOptionError."""
    return TaxPlan(
        whole_numbers(counts, option="--counts", most=MAX_ADAPTERS),
        whole_numbers(concurrency, option="--concurrency", most=MAX_WORKERS),
    )


def parse_tax_limit(text: str, plan: TaxPlan) -> TaxLimit:
    """`4@32:0.90`, or `4:0.90` for every concurrency. Raises LoadOptionError, also for what is not measured."""
    where, _, ratio_text = text.partition(":")
    count_text, at, concurrency_text = where.partition("@")
    try:
        count, ratio = int(count_text), float(ratio_text)
        concurrency = int(concurrency_text) if at else None
    except ValueError:
        raise LoadOptionError(
            f"--fail-below {text!r}: write ADAPTERS@CONCURRENCY:RATIO, e.g. 4@32:0.90"
        ) from None
    if not 0 < ratio < 10:
        raise LoadOptionError(f"--fail-below {text!r}: a ratio to the base is above 0, e.g. 0.90")
    if count not in plan.counts or (concurrency is not None and concurrency not in plan.concurrency):
        raise LoadOptionError(
            f"--fail-below {text!r} is not among what is measured: --counts {_listed(plan.counts)}, "
            f"--concurrency {_listed(plan.concurrency)}"
        )
    return TaxLimit(count, concurrency, ratio)


def tax_arms(bench: Bench, plan: TaxPlan) -> list[Arm]:
    """The base and the first so many of the bench's adapters, each set against the base at its concurrency.

    Raises LoadOptionError when the server has fewer adapters than the plan asks for.
    """
    served = bench.load.adapters
    if len(served) < plan.counts[-1]:
        asked = "all" if bench.settings.adapters == "all" else f"--adapters {bench.settings.adapters}"
        raise LoadOptionError(
            f"--counts {_listed(plan.counts)} is more than the {len(served)} adapters of {bench.target.url} "
            f"({asked}); load more, or give lower --counts"
        )
    arms = []
    for concurrency in plan.concurrency:
        arrivals = parse_arrivals(f"closed:{concurrency}")
        base = _name(0, concurrency)
        for count in (0, *plan.counts):
            name = _name(count, concurrency)
            arms.append(Arm(name, _over(bench, served[:count], salt=name), arrivals, against=base))
    return arms


def below(limits: Sequence[TaxLimit], conclusion: Mapping[str, Any], plan: TaxPlan) -> list[str]:
    """What is slower than it may be, a line each; a ratio that could not be had is."""
    ratios = {figure["arm"]: figure["ratio"] for figure in conclusion["arms"] if figure["metric"] == _LIMITED}
    found = []
    for limit in limits:
        for concurrency in plan.concurrency if limit.concurrency is None else (limit.concurrency,):
            name = _name(limit.count, concurrency)
            ratio = ratios.get(name)
            if ratio is None:
                found.append(f"{name}: there is no ratio to the base's tok/s")
            elif ratio["median"] < limit.ratio:
                found.append(
                    f"{name}: {ratio['median']:.3f} of the base's tok/s, less than {limit.ratio:g} of it"
                )
    return found


@contextlib.contextmanager
def serving(
    settings: BenchSettings,
    plan: TaxPlan,
    *,
    base: str | None,
    dtype: str | None,
    ranks: str | None,
    flags: Sequence[str],
    say: Callable[[str], None],
) -> Iterator[tuple[BenchSettings, str]]:
    """(settings with an address, a line for the report): the server that `--url` names, or one of its own.

    Its own has as many adapters as the plan asks for at most, and as many slots, each as large as the highest rank
    needs; `flags` of `hotswap serve` come last and so win. Raises LoadOptionError and what `own_gateway` raises.
    """
    if "url" in settings.model_fields_set:
        if flags or any(value is not None for value in (base, dtype, ranks)):
            raise LoadOptionError(
                f"--base, --dtype, --ranks and flags after -- are for a gateway that is started here, but --url "
                f"({settings.url}) names one that runs; leave out the one or the other"
            )
        yield settings, f"A server that ran already, at {settings.url}."
        return
    if settings.adapters != "all":
        raise LoadOptionError(
            "--adapters names adapters of a running server; give --url as well, or --counts"
        )
    dealt, most = parse_ranks(ranks or "8"), plan.counts[-1]
    more = [
        f"--max-lora-rank={slot_rank(max(dealt))}",
        f"--max-loras={most}",
        f"--max-cpu-loras={max(64, most)}",
    ]
    more += [f"--dtype={dtype}"] if dtype is not None else []
    more += flags
    with own_gateway(base or "default", adapters=most, ranks=dealt, more_flags=more, say=say) as gateway:
        note = (
            f"A gateway of its own: hotswap serve --base {gateway.base.name} {' '.join(more)}; {most} adapters of "
            f"rank {', '.join(map(str, dealt))} on all linear layers, made of random numbers."
        )
        # In the order they were made, so that each number of adapters has all ranks in it.
        yield settings.model_copy(update={"url": gateway.url, "adapters": ",".join(gateway.adapters)}), note


def _name(count: int, concurrency: int) -> str:
    who = {0: "base", 1: "1 adapter"}.get(count, f"{count} adapters")
    return f"{who} @{concurrency}"


def _over(bench: Bench, adapters: Sequence[str], *, salt: str) -> Bench:
    """The same load over these adapters alone; over none it asks the base.

    The texts are others of the same lengths, or the server would have the arm's prompts in its prefix cache.
    """
    return replace(
        bench,
        prompts=replace(bench.prompts, salt=salt),
        target=replace(bench.target, adapters=tuple(adapters)),
        load=replace(bench.load, adapters=tuple(adapters)),
    )


def _listed(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
