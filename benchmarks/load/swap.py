"""What replacing one adapter again and again costs the requests on all others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.load.bench import Bench
from benchmarks.load.churn import Changes, plan_swaps
from benchmarks.load.client.record import FAILED
from benchmarks.load.client.sending import Beside
from benchmarks.load.errors import NothingMeasuredError
from benchmarks.load.figures.figures import run_figures
from benchmarks.load.figures.slo import Slo
from benchmarks.load.guests import Guests
from benchmarks.load.rounds import Arm, Turn, conclusion_of_turns

SWAPPED = "bench-swapped"
AT_REST, SWAPPING = "at rest", "with swaps"
_RESAMPLES = 2000


def swap_arms(bench: Bench, brought: Guests, *, every_seconds: float, admin_key: str | None) -> list[Arm]:
    """The load as it is, and the same while SWAPPED is replaced by the next of the sources every so often."""
    settings = bench.settings
    seconds = settings.warmup_seconds + settings.seconds
    # The first source comes last: SWAPPED means it when a run begins.
    plan = plan_swaps(
        SWAPPED, (*brought.sources[1:], brought.sources[0]), every_seconds=every_seconds, seconds=seconds
    )
    changes = Changes(bench.target.url, plan, brought.before, admin_key)

    def swaps(seed: int) -> Beside:
        del seed  # swaps are as regular in every run
        return changes.running

    arms = []
    for name, beside in ((AT_REST, None), (SWAPPING, swaps)):
        # Other texts of the same lengths: the prefix cache would have those of the arm that was first.
        own = replace(bench, prompts=replace(bench.prompts, salt=name), beside=beside)
        arms.append(Arm(name, own, bench.load.arrivals))
    return arms


def swap_conclusion(
    turns: Sequence[Turn],
    arms: Sequence[Arm],
    *,
    slo: Slo,
    every_seconds: float,
) -> dict[str, Any]:
    """What `conclusion_of_turns` keeps, of the requests on others than SWAPPED, and `swap`.

    Raises NothingMeasuredError when a run brought no answer of another adapter.
    """
    others = [_others(turn, slo) for turn in turns]
    verbs = [verb for turn in turns for verb in turn.run.swaps]
    failures: Counter[str] = Counter(
        record.failure
        for turn in turns
        for record in turn.run.records
        if record.outcome in FAILED and record.failure is not None
    )
    failures.update(f"swap: {verb.error}" for verb in verbs if verb.error is not None)
    rest, swapping = (
        {turn.round: _ttft_seconds(turn) for turn in others if turn.arm == arm} for arm in (AT_REST, SWAPPING)
    )
    ratio, low, high = pooled_p99_ratio(rest, swapping)
    return {
        **conclusion_of_turns(others, arms, AT_REST),
        "swap": {
            "every_seconds": every_seconds,
            "p99_ratio": ratio,
            "p99_ratio_interval": [low, high],
            "answers": {
                AT_REST: sum(map(len, rest.values())),
                SWAPPING: sum(map(len, swapping.values())),
            },
            "requests": sum(len(turn.run.records) for turn in turns),
            "swaps": len(verbs),
            "failures": dict(failures.most_common()),
        },
    }


def pooled_p99_ratio(
    rest: Mapping[int, Sequence[float]], swapping: Mapping[int, Sequence[float]], *, seed: int = 0
) -> tuple[float, float, float]:
    """p99 of all values with swaps over that of all at rest, and the 95 % interval of a bootstrap.

    Values are by round. Rounds are drawn first and values within them then, so that what a round has in common
    counts. Both have at least one round in common, and no round is empty.
    """
    draw = np.random.default_rng(seed)
    arms = [{number: np.asarray(values) for number, values in arm.items()} for arm in (rest, swapping)]
    rounds = sorted(set(rest) & set(swapping))

    def p99(arm: Mapping[int, Any], drawn: Sequence[int], *, resample: bool) -> float:
        parts = [draw.choice(arm[n], len(arm[n])) if resample else arm[n] for n in drawn]
        return float(np.percentile(np.concatenate(parts), 99))

    found = []
    for _ in range(_RESAMPLES):
        drawn = [int(number) for number in draw.choice(rounds, len(rounds))]
        found.append(p99(arms[1], drawn, resample=True) / p99(arms[0], drawn, resample=True))
    whole = p99(arms[1], rounds, resample=False) / p99(arms[0], rounds, resample=False)
    low, high = np.percentile(found, [2.5, 97.5])
    return whole, float(low), float(high)


def _others(turn: Turn, slo: Slo) -> Turn:
    """The same run without the requests on the adapter that is replaced."""
    run = turn.run
    records = [record for record in run.records if record.adapter != SWAPPED]
    figures = run_figures(records, run.window, slo)
    if figures["ttft_seconds"] is None:
        raise NothingMeasuredError(
            f"{run.name}: no stream on another adapter than the one that is replaced was answered in full, so that "
            "there is no TTFT to compare"
        )
    return replace(turn, run=replace(run, records=records, figures=figures))


def _ttft_seconds(turn: Turn) -> list[float]:
    run = turn.run
    return [
        record.ttft_seconds
        for record in run.records
        if record.ok and record.ttft_seconds is not None and run.window.holds(record.scheduled_seconds)
    ]
