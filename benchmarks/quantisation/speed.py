"""Tokens per second and time to the first token of servers that are up, in turns."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.closed_loop.block import Block
from benchmarks.closed_loop.comparison import Cell, cell, compare, group, is_noisy
from benchmarks.closed_loop.measurement import Measurement, Progress
from benchmarks.closed_loop.part import Contender, Part
from benchmarks.quantisation.figures import Measured, SpeedCell, SpeedFigures
from benchmarks.quantisation.fleet import Say
from benchmarks.quantisation.plan import ReportPlan
from benchmarks.quantisation.served import Served, spec_of
from benchmarks.server import Server
from benchmarks.statistics import Spread, paired_ratios, spread


def measure_together(
    served: Sequence[Served], servers: Mapping[str, Server], plan: ReportPlan, *, folder: Path, say: Say
) -> SpeedFigures:
    """All servers are up, one under load at a time. Whole rounds alone, as many as fit in the time."""
    part = _part(served, plan, folder, together=True)
    progress, started = _Pace(plan, len(served), say), datetime.now(UTC)
    measurement = Measurement(part, plan.load, out=folder, progress=Progress(say, progress.block_done))
    blocks = measurement.run_on(servers, deadline=time.monotonic() + plan.speed_seconds)
    return figures_of(blocks, served, plan, started=started, together=True)


def measure_apart(served: Sequence[Served], plan: ReportPlan, *, folder: Path, say: Say) -> SpeedFigures:
    """One server at a time, each started anew in every round: where memory does not hold them all."""
    part = _part(served, plan, folder, together=False)
    progress, started = _Pace(plan, len(served), say), datetime.now(UTC)
    measurement = Measurement(part, plan.load, out=folder, progress=Progress(say, progress.block_done))
    return figures_of(measurement.run(), served, plan, started=started, together=False)


def figures_of(
    blocks: Sequence[Block],
    served: Sequence[Served],
    plan: ReportPlan,
    *,
    started: datetime,
    together: bool,
) -> SpeedFigures:
    """Cells by concurrency and server, with ratios of pairs in the same round."""
    groups, baseline = group(blocks), served[0].name
    cells = [
        _cell(found, groups.get((baseline, concurrency)))
        for concurrency in plan.concurrency
        for each in served
        if (found := groups.get((each.name, concurrency)))
    ]
    prompt_tokens = sorted({number for block in blocks for number in block.prompt_tokens})
    return SpeedFigures(
        started=started.isoformat(timespec="seconds"),
        rounds=len({block.round for block in blocks}),
        rounds_wanted=plan.rounds,
        max_tokens=plan.max_tokens,
        prompt_tokens=tuple(prompt_tokens),
        baseline=baseline,
        together=together,
        cells=tuple(cells),
        warnings=tuple(_warnings(cells)),
    )


def _part(served: Sequence[Served], plan: ReportPlan, folder: Path, *, together: bool) -> Part:
    return Part(
        name="speed",
        title="Speed",
        servers=tuple(spec_of(each, plan, folder=folder, adapter_rank=8) for each in served),
        contenders=tuple(Contender(each.name, each.title, each.name, "generate") for each in served),
        baseline=served[0].name,
        together=together,
    )


def _cell(blocks: Sequence[Block], baseline: Sequence[Block] | None) -> SpeedCell:
    found: Cell = cell(blocks)
    throughput = ttft = None
    if baseline is not None and baseline is not blocks:
        throughput = compare(blocks, baseline).throughput_ratio
        ratios = paired_ratios(_ttft_by_round(blocks), _ttft_by_round(baseline))
        ttft = spread(ratios) if ratios else None
    return SpeedCell(
        served=found.contender,
        concurrency=found.concurrency,
        attempted=found.attempted,
        answered=found.answered,
        output_tok_s=_measured(found.output_tok_s),
        ttft_p50_seconds=found.ttft_p50_seconds,
        ttft_p99_seconds=found.ttft_p99_seconds,
        tpot_p50_seconds=found.tpot_p50_seconds,
        throughput_ratio=_measured(throughput),
        ttft_ratio=_measured(ttft),
        noisy_blocks=sum(is_noisy(block) for block in blocks),
        blocks=len(blocks),
    )


def _ttft_by_round(blocks: Sequence[Block]) -> dict[int, float]:
    return {block.round: ttft for block in blocks if (ttft := block.ttft_p50_seconds) is not None}


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


class _Pace:
    """Says after each block how far the speed part is and about how long it still takes."""

    def __init__(self, plan: ReportPlan, num_served: int, say: Say) -> None:
        self._total = plan.rounds * len(plan.concurrency) * num_served
        self._say = say
        self._done = 0
        self._started = time.monotonic()

    def block_done(self, block: Block) -> None:
        self._done += 1
        left_seconds = (time.monotonic() - self._started) / self._done * (self._total - self._done)
        rate = f"{block.output_tok_s:.1f} tok/s" if block.output_tok_s is not None else "no rate"
        busy = (
            f", {block.cost.foreign_cpu_share:.0%} of the machine taken by others" if is_noisy(block) else ""
        )
        self._say(
            f"speed {self._done}/{self._total}: round {block.round + 1} c={block.concurrency} "
            f"{block.contender}: {rate}{busy}; {left_seconds / 60:.1f} min left"
        )
