"""The result for people, as Markdown: on the terminal, and as an entry for benchmarks/LOG.md."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from benchmarks.statistics import percentile
from benchmarks.surroundings import Surroundings
from benchmarks.swap_impact.block import (
    FIGURES,
    NOISY_SHARE,
    TARGET_RATIO,
    Block,
    phase_spreads,
    pooled_p99_ratio,
    ratios,
)
from benchmarks.swap_impact.plan import Plan

_MS = {"TTFT p50", "TTFT p99", "TPOT p50", "TPOT p99"}


def markdown(
    blocks: Sequence[Block], plan: Plan, *, started: datetime, command: str, surroundings: Surroundings
) -> str:
    """The whole entry."""
    return "\n".join(
        [
            f"## {started:%Y-%m-%d}: swap impact",
            "",
            f"`{command}`",
            "",
            surroundings.line() + ".",
            "",
            f"Closed loop, streaming: {plan.concurrency} lanes on {plan.bystanders} adapters at rest and "
            f"{plan.swapped_concurrency} on the one that is replaced, rank {plan.rank}, prompts of "
            f"{plan.prompt_words} words, answers of {plan.max_tokens} tokens, greedy. {plan.pairs} pairs of blocks "
            f"of {plan.block_seconds:g} s in turns: at rest, and with a swap due every "
            f"{plan.interval_seconds:g} s among {plan.versions} versions.",
            "",
            *_impact(blocks),
            "",
            *_phases(blocks),
            "",
            *(f"- {line}" for line in (*verdicts(blocks), *warnings(blocks))),
            "",
        ]
    )


def _impact(blocks: Sequence[Block]) -> list[str]:
    lines = [
        "| of the other adapters | at rest | with swaps | ratio of each pair: median (least to most) |",
        "| --- | --- | --- | --- |",
    ]
    for name in FIGURES:
        scale, unit = (1000.0, " ms") if name in _MS else (1.0, "")
        values = [
            percentile([block.figure(name) for block in blocks if block.swapping is swapping], 0.5) * scale
            for swapping in (False, True)
        ]
        ratio = ratios(blocks, name)
        shown = f"{ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
        lines.append(f"| {name} | {values[0]:.1f}{unit} | {values[1]:.1f}{unit} | {shown} |")
    return lines


def _phases(blocks: Sequence[Block]) -> list[str]:
    lines = ["| phase of a swap | p50 ms | p99 ms | most ms |", "| --- | --- | --- | --- |"]
    for phase, values in phase_spreads(blocks).items():
        lines.append(f"| {phase} | " + " | ".join(f"{1000 * value:.1f}" for value in values) + " |")
    return lines


def verdicts(blocks: Sequence[Block]) -> list[str]:
    """What was to be shown, as it came out."""
    ratio, low, high = pooled_p99_ratio(blocks)
    requests = [sum(len(b.ttft_seconds) for b in blocks if b.swapping is s) for s in (False, True)]
    median = ratios(blocks, "TTFT p99").median
    swaps = [swap for block in blocks if block.swapping for swap in block.swaps]
    failed = sum(block.failed for block in blocks)
    return [
        f"p99 TTFT of the others rises by less than {TARGET_RATIO - 1:.0%}: "
        f"{'met' if median < TARGET_RATIO and ratio < TARGET_RATIO else 'MISSED'}; over all requests "
        f"({requests[0]} at rest, {requests[1]} with swaps) it is {ratio:.3f} times as long "
        f"(95 %: {low:.3f} to {high:.3f})",
        f"{len(swaps)} swaps, {sum(block.requests for block in blocks)} requests, {failed} failures: "
        + ("met" if not failed else "MISSED"),
    ]


def warnings(blocks: Sequence[Block]) -> list[str]:
    """What a reader must know before believing the figures."""
    found = []
    noisy = [block for block in blocks if block.foreign_cpu_share > NOISY_SHARE]
    if noisy:
        worst = max(block.foreign_cpu_share for block in noisy)
        found.append(
            f"{len(noisy)} of {len(blocks)} blocks ran while something else used more than {NOISY_SHARE:.0%} of "
            f"the machine (up to {worst:.0%}): run it again on a quiet machine"
        )
    errors = {error for block in blocks for error in block.errors}
    errors |= {swap.error for block in blocks for swap in block.swaps if swap.error is not None}
    found += [f"failed: {error}" for error in sorted(errors)[:8]]
    return found
