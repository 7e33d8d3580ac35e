"""Bases side by side: a gateway for each, one under load at a time, and the highest rate that each holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from benchmarks.load.bench import Bench, prepare
from benchmarks.load.quant_bases import QuantBase
from benchmarks.load.quant_fleet import Fleet, Say
from benchmarks.load.rates import Found, search
from benchmarks.load.rounds import Arm, Turn, conclusion_of_turns, duration_line, take_turns
from benchmarks.load.run import RunResult
from benchmarks.load.settings import BenchSettings
from benchmarks.load.workload.arrivals import parse_arrivals
from benchmarks.quantisation.figures import MemoryFigures
from benchmarks.turns import rotated


@dataclass(frozen=True, slots=True)
class QuantPlan:
    """How much is measured. `most_runs` 0: no search for the highest rate."""

    concurrency: tuple[int, ...]
    rounds: int
    attainment: float
    most_runs: int

    @property
    def arrivals_text(self) -> str:
        """For the report."""
        return ", ".join(f"closed:{number}" for number in self.concurrency)


@dataclass(slots=True)
class QuantResult:
    """What came of it, by the bases' names where it is of one."""

    benches: dict[str, Bench] = field(default_factory=dict)
    arms: dict[str, Arm] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    searches: list[RunResult] = field(default_factory=list)
    found: dict[str, Found] = field(default_factory=dict)
    memory: dict[str, MemoryFigures] = field(default_factory=dict)

    @property
    def runs(self) -> list[RunResult]:
        """All of them."""
        return [*(turn.run for turn in self.turns), *self.searches]


def measure_bases(
    fleet: Fleet,
    settings: BenchSettings,
    plan: QuantPlan,
    *,
    apart: bool,
    progress: Callable[[dict[str, float]], None],
    say: Say,
) -> QuantResult:
    """Turns of all bases under every load, then the search on each.

    Where memory does not hold all gateways, each is started anew in every round. Raises BenchmarkError.
    """
    result = QuantResult()
    say(duration_line(settings, rounds=plan.rounds, runs_a_round=len(fleet.bases) * len(plan.concurrency)))
    if plan.most_runs:
        searches = len(fleet.bases) * (1 + plan.most_runs)
        say(f"and for the highest rates at most {duration_line(settings, rounds=1, runs_a_round=searches)}")
    groups = fleet.groups(apart=apart)
    if len(groups) == 1:
        visits = [(groups[0], range(plan.rounds))]
    else:
        say(f"{len(groups)} groups of gateways one after the other, started anew in each round")
        visits = [
            (group, range(number, number + 1))
            for number in range(plan.rounds)
            for group in rotated(groups, number)
        ]
    for group, numbers in visits:
        with fleet.up(group) as servers:
            for base in group:
                result.benches[base.name] = prepare(
                    settings.model_copy(update={"url": servers[base.name].url})
                )
            arms = [
                _arm(base, result.benches[base.name], concurrency, fleet.bases[0])
                for concurrency in plan.concurrency
                for base in group
            ]
            result.arms.update((arm.name, arm) for arm in arms)
            for number in numbers:
                result.turns += take_turns(arms, rounds=plan.rounds, only=number, progress=progress, say=say)
            for base in group:
                result.memory.setdefault(base.name, fleet.memory(base, servers[base.name]))
                if plan.most_runs and base.name not in result.found:
                    _search(base, result, plan, progress, say)
    return result


def conclusion_of(fleet: Fleet, result: QuantResult, plan: QuantPlan) -> dict[str, Any]:
    """What the result file keeps: that of turns, `quality` by arm, `bases`, and `search` where there was one."""
    order = [_arm_name(base, concurrency) for concurrency in plan.concurrency for base in fleet.bases]
    turns = sorted(result.turns, key=lambda turn: order.index(turn.arm))
    conclusion = conclusion_of_turns(turns, [result.arms[name] for name in order], order[0])
    rows = []
    for base in fleet.bases:
        memory, found = result.memory[base.name], result.found.get(base.name)
        rows.append(
            {
                "name": base.name,
                "dtype": base.dtype,
                "scheme": base.scheme,
                "disk_bytes": base.disk_bytes,
                "weights_bytes": memory.weights_bytes,
                "pss_bytes": memory.pss_bytes,
                "quality": base.quality,
                "quality_figures": base.figures.model_dump(mode="json") if base.figures is not None else None,
                "held": asdict(found) if found is not None else None,
            }
        )
    return {
        **conclusion,
        "notes": [fleet.note],
        "bases": rows,
        "quality": {
            _arm_name(base, concurrency): base.quality
            for base in fleet.bases
            for concurrency in plan.concurrency
        },
        "search": {"attainment": plan.attainment, "most_runs": plan.most_runs} if plan.most_runs else None,
    }


def _search(
    base: QuantBase,
    result: QuantResult,
    plan: QuantPlan,
    progress: Callable[[dict[str, float]], None],
    say: Say,
) -> None:
    say(f"the highest rate of {base.name}")
    bench = result.benches[base.name]
    bench = replace(
        bench,
        load=replace(bench.load, arrivals=parse_arrivals(f"closed:{plan.concurrency[-1]}")),
        prompts=replace(bench.prompts, salt="search"),
    )
    runs, found = search(
        bench, attainment=plan.attainment, most_runs=plan.most_runs, progress=progress, say=say
    )
    for run in runs:
        run.name = f"{base.name}, {run.name}"
    result.searches += runs
    result.found[base.name] = found


def _arm(base: QuantBase, bench: Bench, concurrency: int, first: QuantBase) -> Arm:
    """All bases get the same texts; the loads of one base get others, for its prefix cache."""
    return Arm(
        _arm_name(base, concurrency),
        replace(bench, prompts=replace(bench.prompts, salt=f"@{concurrency}")),
        parse_arrivals(f"closed:{concurrency}"),
        against=_arm_name(first, concurrency),
    )


def _arm_name(base: QuantBase, concurrency: int) -> str:
    return f"{base.name} @{concurrency}"
