"""From blocks to what is reported: cells, and contenders against the baseline in pairs of the same round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.closed_loop.block import Block
from benchmarks.load.disturbance import MAX_NOISY_BLOCKS, MOST_SHARE
from benchmarks.statistics import (
    Spread,
    paired_differences,
    paired_ratios,
    percentile,
    spread,
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One contender at one concurrency, over all rounds."""

    contender: str
    concurrency: int
    attempted: int
    answered: int
    output_tok_s: Spread | None
    ttft_p50_seconds: float | None  # over the requests of all rounds
    ttft_p99_seconds: float | None
    tpot_p50_seconds: float | None
    e2e_p50_seconds: float | None
    http_cpu_ms_per_token: Spread | None
    foreign_cpu_share: Spread


@dataclass(frozen=True, slots=True)
class Comparison:
    """One contender against the baseline at one concurrency; each value is of pairs of the same round."""

    contender: str
    baseline: str
    concurrency: int
    throughput_ratio: Spread | None
    added_ttft_seconds: Spread | None
    tpot_ratio: Spread | None
    noisy: bool  # too much else was going on to judge


def cell(blocks: Sequence[Block]) -> Cell:
    """The cell of blocks that have the same contender and concurrency."""
    first = blocks[0]
    ttft = [seconds for block in blocks for seconds in block.ttft_seconds]
    return Cell(
        contender=first.contender,
        concurrency=first.concurrency,
        attempted=sum(block.attempted for block in blocks),
        answered=sum(block.answered for block in blocks),
        output_tok_s=_spread([block.output_tok_s for block in blocks]),
        ttft_p50_seconds=_percentile(ttft, 0.5),
        ttft_p99_seconds=_percentile(ttft, 0.99),
        tpot_p50_seconds=_percentile([seconds for block in blocks for seconds in block.tpot_seconds], 0.5),
        e2e_p50_seconds=_percentile([seconds for block in blocks for seconds in block.e2e_seconds], 0.5),
        http_cpu_ms_per_token=_spread([block.http_cpu_ms_per_token for block in blocks]),
        foreign_cpu_share=spread([block.cost.foreign_cpu_share for block in blocks]),
    )


def compare(ours: Sequence[Block], theirs: Sequence[Block]) -> Comparison:
    """Blocks of one contender against blocks of the baseline, at one concurrency."""
    ratios = paired_ratios(_by_round(ours, "output_tok_s"), _by_round(theirs, "output_tok_s"))
    added = paired_differences(_by_round(ours, "ttft_p50_seconds"), _by_round(theirs, "ttft_p50_seconds"))
    tpot = paired_ratios(_by_round(ours, "tpot_p50_seconds"), _by_round(theirs, "tpot_p50_seconds"))
    return Comparison(
        contender=ours[0].contender,
        baseline=theirs[0].contender,
        concurrency=ours[0].concurrency,
        throughput_ratio=_spread(ratios),
        added_ttft_seconds=_spread(added),
        tpot_ratio=_spread(tpot),
        noisy=sum(is_noisy(block) for block in (*ours, *theirs))
        > MAX_NOISY_BLOCKS * (len(ours) + len(theirs)),
    )


def is_noisy(block: Block) -> bool:
    """True when something else used the machine during the block."""
    return block.cost.foreign_cpu_share > MOST_SHARE


def group(blocks: Sequence[Block]) -> Mapping[tuple[str, int], list[Block]]:
    """Blocks by (contender, concurrency), in order of appearance."""
    groups: dict[tuple[str, int], list[Block]] = {}
    for block in blocks:
        groups.setdefault((block.contender, block.concurrency), []).append(block)
    return groups


def _by_round(blocks: Sequence[Block], name: str) -> dict[int, float]:
    values = {block.round: getattr(block, name) for block in blocks}
    return {number: value for number, value in values.items() if value is not None}


def _spread(values: Sequence[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    return spread(known) if known else None


def _percentile(values: Sequence[float], share: float) -> float | None:
    return percentile(values, share) if values else None
