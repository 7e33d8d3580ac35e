"""Several loads that take turns, so that drift of the machine affects all equally, and their ratios."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.load.bench import Bench
from benchmarks.load.comparison import METRICS, figure_of
from benchmarks.load.run import RunResult
from benchmarks.load.settings import BenchSettings
from benchmarks.load.workload.arrivals import Arrivals
from benchmarks.statistics import Spread, paired_ratios, spread
from benchmarks.turns import rotated

_START_SECONDS = 4.0  # of the client's process, before each run


@dataclass(frozen=True, slots=True)
class Arm:
    """One of the things that are compared; `around` is entered for each of its runs, e.g. to swap adapters.

    `against` names the arm that it is set against, itself for one that is set against none; None: the baseline.
    """

    name: str
    bench: Bench
    arrivals: Arrivals
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    against: str | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One run of one arm."""

    arm: str
    round: int
    run: RunResult


@dataclass(frozen=True, slots=True)
class ArmFigure:
    """One metric of one arm over the rounds, and its ratio to that of the arm `against` in the same round."""

    arm: str
    metric: str
    value: Spread
    ratio: Spread | None  # None: of a baseline itself, or where it has none
    against: str | None = None  # None: a baseline itself


def take_turns(
    arms: Sequence[Arm],
    *,
    rounds: int,
    progress: Callable[[dict[str, float]], None],
    say: Callable[[str], None],
    only: int | None = None,
    into: list[Turn] | None = None,
) -> list[Turn]:
    """Run every arm once a round, another one first in each; all arms of a round have the same seed.

    `only`: this one of the rounds alone, counted from 0. `into` gets each turn when it has ended, so that those are
    kept which were before an interruption. Raises BenchmarkError.
    """
    turns = [] if into is None else into
    for number in range(rounds) if only is None else (only,):
        for arm in rotated(arms, number):
            say(f"{arm.name}, round {number + 1} of {rounds}")
            with arm.around():
                run = arm.bench.run(
                    f"{arm.name}, round {number + 1}",
                    arm.arrivals,
                    seed=arm.bench.settings.seed + number,
                    progress=progress,
                )
            turns.append(Turn(arm.name, number, run))
    return turns


def duration_line(settings: BenchSettings, *, rounds: int, runs_a_round: int) -> str:
    """How much there is to do, and about how long it takes."""
    run_seconds = settings.warmup_seconds + settings.seconds
    minutes = rounds * runs_a_round * (run_seconds + _START_SECONDS) / 60
    return f"{rounds * runs_a_round} runs of {run_seconds:g} s: about {max(1, round(minutes))} min"


def arm_figures(
    turns: Sequence[Turn],
    baseline: str,
    metrics: Sequence[str] = tuple(METRICS),
    *,
    against: Mapping[str, str] | None = None,
) -> list[ArmFigure]:
    """Median and extremes of each metric of each arm, and of its ratios to `baseline`, in the order of `turns`.

    `against` names another baseline for the arms that have one.
    """
    by_arm: dict[str, dict[int, dict[str, Any]]] = {}
    for turn in turns:
        by_arm.setdefault(turn.arm, {})[turn.round] = turn.run.figures
    found = []
    for arm, rounds in by_arm.items():
        other = (against or {}).get(arm, baseline)
        for metric in metrics:
            ours = _series(rounds, metric)
            if not ours:
                continue
            theirs = _series(by_arm.get(other, {}), metric)
            ratios = paired_ratios(ours, theirs) if arm != other else []
            found.append(
                ArmFigure(
                    arm,
                    metric,
                    spread(list(ours.values())),
                    spread(ratios) if ratios else None,
                    other if arm != other else None,
                )
            )
    return found


def conclusion_of_turns(turns: Sequence[Turn], arms: Sequence[Arm], baseline: str) -> dict[str, Any]:
    """What the result file keeps of a comparison: `baseline`, `rounds`, `targets` by arm, and `arms`."""
    against = {arm.name: arm.against for arm in arms if arm.against is not None}
    return {
        "baseline": baseline,
        "rounds": 1 + max(turn.round for turn in turns),
        "targets": {arm.name: arm.bench.target.shown() for arm in arms},
        "arms": [asdict(figure) for figure in arm_figures(turns, baseline, against=against)],
    }


def _series(rounds: Mapping[int, Mapping[str, Any]], metric: str) -> dict[int, float]:
    path = METRICS[metric][0]
    found = {number: figure_of(figures, path) for number, figures in rounds.items()}
    return {number: value for number, value in found.items() if value is not None}
