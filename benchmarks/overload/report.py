"""The result for people, as Markdown: on the terminal, and as an entry for benchmarks/LOG.md."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from benchmarks.overload.figures import Stage
from benchmarks.overload.plan import Plan
from benchmarks.surroundings import Surroundings

GOODPUT_TARGET = 0.9  # of the peak, at twice the capacity
TARGET_FACTOR = 2.0
REFUSAL_TARGET_SECONDS = 0.1
NOISY_SHARE = 0.05
MOST_NOISY_STAGES = 0.2  # of all; beyond it there is no verdict
LATE_SECONDS = 0.05  # a client later than this measures itself


def markdown(
    stages: Sequence[Stage],
    capacity: float,
    plan: Plan,
    *,
    started: datetime,
    command: str,
    surroundings: Surroundings,
) -> str:
    """The whole entry."""
    return "\n".join(
        [
            f"## {started:%Y-%m-%d}: overload",
            "",
            f"`{command}`",
            "",
            surroundings.line() + ".",
            "",
            f"`/generate`, streaming, greedy, base; prompts of {plan.prompt_words} words, answers of "
            f"{plan.max_tokens} tokens. Closed loops find the capacity, {capacity:.2f} answers/s. Then requests "
            f"come at random moments (Poisson) for {plan.settle_seconds:g} s uncounted and "
            f"{plan.measure_seconds:g} s counted, nobody comes again. An answer is good if it came whole, its "
            f"first token within {plan.limits.ttft_seconds:g} s and its last within "
            f"{plan.limits.e2e_seconds:g} s of when the request was due.",
            "",
            "| load | offered/s | good/s | answers/s | tok/s | TTFT p50, p99 s | e2e p99 s | 429s | p50, p99 ms |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
            *(_row(stage) for stage in stages),
            "",
            *(f"- {line}" for line in (*verdicts(stages), *warnings(stages))),
            "",
        ]
    )


def _row(stage: Stage) -> str:
    offered = f"{stage.offered_per_second:.1f}" if stage.offered_per_second is not None else ""
    return (
        f"| {stage.name} | {offered} | {stage.goodput_per_second:.2f} | {stage.answers_per_second:.2f} | "
        f"{stage.tokens_per_second:.0f} | {_number(stage.ttft_p50_seconds)}, {_number(stage.ttft_p99_seconds)} | "
        f"{_number(stage.e2e_p99_seconds)} | {stage.refused} | {_number(stage.refusal_p50_seconds, 1000)}, "
        f"{_number(stage.refusal_p99_seconds, 1000)} |"
    )


def _number(value: float | None, scale: float = 1.0) -> str:
    return "-" if value is None else f"{value * scale:.1f}" if scale != 1.0 else f"{value:.2f}"


def verdicts(stages: Sequence[Stage]) -> list[str]:
    """What was to be shown, as it came out; without "met" or "MISSED" where others used the machine too much."""
    found = []
    disturbed = sum(stage.foreign_cpu_share > NOISY_SHARE for stage in stages) > MOST_NOISY_STAGES * len(
        stages
    )

    def outcome(met: bool) -> str:
        return "no verdict on a disturbed machine" if disturbed else "met" if met else "MISSED"

    peak = max(stages, key=lambda stage: stage.goodput_per_second)
    for stage in stages:
        if stage.name != f"{TARGET_FACTOR:g}x":
            continue
        share = stage.goodput_per_second / peak.goodput_per_second if peak.goodput_per_second else 0.0
        found.append(
            f"goodput at twice the capacity is at least {GOODPUT_TARGET:.0%} of its peak ({peak.name}): "
            f"{outcome(share >= GOODPUT_TARGET)}, {share:.1%}"
        )
    refusing = [stage for stage in stages if stage.refusal_p99_seconds is not None]
    if refusing:
        worst = max(stage.refusal_p99_seconds or 0.0 for stage in refusing)
        count = sum(stage.refused for stage in refusing)
        found.append(
            f"the excess gets its 429 in under {1000 * REFUSAL_TARGET_SECONDS:.0f} ms (p99 of {count}): "
            f"{outcome(worst < REFUSAL_TARGET_SECONDS)}, at most {1000 * worst:.1f} ms"
        )
    return found


def warnings(stages: Sequence[Stage]) -> list[str]:
    """What a reader must know before believing the figures."""
    found = []
    noisy = [stage for stage in stages if stage.foreign_cpu_share > NOISY_SHARE]
    if noisy:
        found.append(
            f"{len(noisy)} of {len(stages)} stages ran while something else used more than {NOISY_SHARE:.0%} of "
            f"the machine (up to {max(stage.foreign_cpu_share for stage in noisy):.0%})"
        )
    late = max((stage.lag_p99_seconds for stage in stages), default=0.0)
    if late > LATE_SECONDS:
        found.append(f"the client sent up to {1000 * late:.0f} ms late (p99): it was short of processor")
    errors = sorted({error for stage in stages for error in stage.errors})
    return found + [f"failed: {error}" for error in errors[:8]]
