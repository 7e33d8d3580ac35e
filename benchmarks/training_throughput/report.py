"""The blocks as a table: tokens per second, and ratios of blocks in the same round."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.statistics import Spread, paired_ratios, spread
from benchmarks.surroundings import Surroundings
from benchmarks.training_throughput.block import TITLES, BlockResult, BlockTask, ContenderName

TARGET_RATIO = 1.5
NOISY_SHARE = 0.05
_HEADINGS = (
    "trainer",
    "tok/s",
    "against TRL",
    "step s (median)",
    "positions per token",
    "validation loss",
    "peak GiB",
    "precision",
)


def rows(blocks: Sequence[BlockResult]) -> list[tuple[str, ...]]:
    """One row per contender; the columns are _HEADINGS."""
    return [_row(name, blocks) for name in TITLES if any(block.contender == name for block in blocks)]


def markdown(blocks: Sequence[BlockResult], task: BlockTask, where: Surroundings, command: str) -> str:
    """The entry for benchmarks/LOG.md, without its heading."""
    rounds = 1 + max(block.round for block in blocks)
    lines = [
        f"`{command}`",
        "",
        f"{where.line()}.",
        "",
        f"LoRA rank {task.rank} on all linear layers, {task.examples_per_step} examples a step, learning rate "
        f"{task.learning_rate:g}; {task.warmup_steps} steps of warm-up, {task.steps} measured, {rounds} rounds "
        "in turns, each block in a process of its own. Tokens are those of the examples, padding not counted.",
        "",
        "| " + " | ".join(_HEADINGS) + " |",
        "|" + " --- |" * len(_HEADINGS),
        *("| " + " | ".join(row) + " |" for row in rows(blocks)),
        "",
        *(f"- {line}" for line in remarks(blocks)),
    ]
    return "\n".join(lines) + "\n"


def remarks(blocks: Sequence[BlockResult]) -> list[str]:
    """The verdict on the target and what a reader must know."""
    found = []
    ratio = _ratio("hotswap", blocks)
    if ratio is not None:
        met = "met" if ratio.median >= TARGET_RATIO else "MISSED"
        found.append(f"at least {TARGET_RATIO:g} times TRL's default: {met} ({_shown(ratio, '{:.2f}')})")
    noisy = [block for block in blocks if block.foreign_cpu_share > NOISY_SHARE]
    if noisy:
        worst = max(block.foreign_cpu_share for block in noisy)
        found.append(
            f"{len(noisy)} of {len(blocks)} blocks ran while something else used more than {NOISY_SHARE:.0%} of "
            f"the machine (up to {worst:.0%})"
        )
    return found


def _row(name: ContenderName, blocks: Sequence[BlockResult]) -> tuple[str, ...]:
    own = [block for block in blocks if block.contender == name]
    steps = sorted(seconds for block in own for seconds in block.step_seconds)
    tokens = sum(sum(block.step_tokens) for block in own)
    positions = sum(sum(block.step_positions) for block in own)
    losses = [block.validation_loss for block in own if block.validation_loss is not None]
    ratio = _ratio(name, blocks)
    return (
        TITLES[name],
        _shown(spread([block.tokens_per_second for block in own]), "{:.0f}"),
        "baseline" if name == "trl" else "-" if ratio is None else _shown(ratio, "{:.2f}"),
        f"{steps[len(steps) // 2]:.2f}",
        f"{positions / tokens:.2f}",
        _shown(spread(losses), "{:.3f}") if losses else "-",
        f"{max(block.peak_memory_bytes for block in own) / 1024**3:.1f}",
        own[0].precision,
    )


def _ratio(name: ContenderName, blocks: Sequence[BlockResult]) -> Spread | None:
    def by_round(contender: str) -> dict[int, float]:
        return {block.round: block.tokens_per_second for block in blocks if block.contender == contender}

    ratios = paired_ratios(by_round(name), by_round("trl"))
    return spread(ratios) if ratios else None


def _shown(value: Spread, form: str) -> str:
    median, low, high = (form.format(each) for each in (value.median, value.low, value.high))
    return f"{median} ({low} to {high})" if value.count > 1 else median
