"""Tables of what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.statistics import Spread, spread
from benchmarks.step_profile.task import SHORTER, VLLM, ProfileResult, ServedResult
from benchmarks.step_profile.timers import LABELS


def markdown(results: Sequence[ProfileResult], served: Sequence[ServedResult], surroundings: str) -> str:
    """The report as a page; `served` in the order of `results`, or empty."""
    lines = ["# Where a decode step's time goes", "", surroundings, ""]
    for number, result in enumerate(results):
        lines += [f"## {result.title}, {result.dtype}, {result.num_threads} threads", ""]
        if result.kernels:
            lines += [f"Kernels: {', '.join(f'{n} x {k}' for n, k in result.kernels.items())}.", ""]
        lines += _steps_table(result)
        for concurrency in _concurrencies(result):
            lines += _breakdown_table(result, concurrency)
        if number < len(served):
            lines += _served_table(result, served[number])
    return "\n".join(lines)


def _concurrencies(result: ProfileResult) -> list[int]:
    return sorted({step.concurrency for step in result.steps})


def _steps_table(result: ProfileResult) -> list[str]:
    lines = [
        "Without timers, in turns: median (least to greatest) of each round's median step.",
        "",
        "| requests | paths | step, wall ms | engine thread's CPU, ms | tok/s | against vLLM's own |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for concurrency in _concurrencies(result):
        rows = [step for step in result.steps if step.concurrency == concurrency]
        own = {step.round: step.wall_seconds for step in rows if step.variant == VLLM}
        for variant in dict.fromkeys(step.variant for step in result.steps):
            steps = [step for step in rows if step.variant == variant]
            wall = spread([step.wall_seconds for step in steps])
            ratio = spread([own[step.round] / step.wall_seconds for step in steps])
            lines.append(
                f"| {concurrency} | {variant} | {_ms(wall)} "
                f"| {_ms(spread([step.thread_seconds for step in steps]))} "
                f"| {concurrency / wall.median:.1f} | {ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f}) |"
            )
    return [*lines, ""]


def _breakdown_table(result: ProfileResult, concurrency: int) -> list[str]:
    lines = [
        f"{concurrency} request{'s' if concurrency > 1 else ''} at once, with timers: wall ms of a step (share), "
        "medians over the rounds.",
        "",
        f"| | {VLLM} | {SHORTER} |",
        "| --- | --- | --- |",
    ]
    columns = {variant: _medians(result, concurrency, variant) for variant in (VLLM, SHORTER)}
    totals = {variant: sum(column.values()) for variant, column in columns.items()}
    for label in LABELS:
        cells = [
            f"{1000 * column.get(label, 0.0):.2f} ({100 * column.get(label, 0.0) / totals[variant]:.0f} %)"
            for variant, column in columns.items()
        ]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    lines.append(f"| sum | {' | '.join(f'{1000 * total:.2f}' for total in totals.values())} |")
    plain = [_plain(result, concurrency, variant) for variant in columns]
    lines.append(f"| the same steps without timers | {' | '.join(f'{1000 * s.median:.2f}' for s in plain)} |")
    return [*lines, ""]


def _served_table(result: ProfileResult, served: ServedResult) -> list[str]:
    lines = [
        "Served: the engine's core in a process of its own, all parts on; from one token of a stream to the next.",
        "",
        "| requests | between tokens, ms | more than a step, ms | front end's CPU per token, ms |",
        "| --- | --- | --- | --- |",
    ]
    for concurrency in _concurrencies(result):
        times = [one for one in served.times if one.concurrency == concurrency]
        gap = spread([one.gap_seconds for one in times])
        more = gap.median - _plain(result, concurrency, SHORTER).median
        front = spread([one.front_cpu_seconds_per_token for one in times])
        lines.append(f"| {concurrency} | {_ms(gap)} | {1000 * more:.2f} | {_ms(front)} |")
    return [*lines, ""]


def _plain(result: ProfileResult, concurrency: int, variant: str) -> Spread:
    return spread(
        [s.wall_seconds for s in result.steps if s.variant == variant and s.concurrency == concurrency]
    )


def _medians(result: ProfileResult, concurrency: int, variant: str) -> dict[str, float]:
    found = [b for b in result.breakdowns if b.variant == variant and b.concurrency == concurrency]
    labels: Iterable[str] = {label for breakdown in found for label in breakdown.wall_seconds}
    return {
        label: spread([breakdown.wall_seconds.get(label, 0.0) for breakdown in found]).median
        for label in labels
    }


def _ms(seconds: Spread) -> str:
    return f"{1000 * seconds.median:.2f} ({1000 * seconds.low:.2f} to {1000 * seconds.high:.2f})"
