"""The result for people: a table in the terminal, and a Markdown entry for benchmarks/LOG.md."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.closed_loop.comparison import (
    NOISY_SHARE,
    Cell,
    Comparison,
    is_noisy,
)
from benchmarks.gateway_overhead.result import PartResult, RunResult
from benchmarks.gateway_overhead.targets import (
    ADDED_TTFT_TARGET_SECONDS,
    THROUGHPUT_RATIO_TARGET,
    throughput_met,
    ttft_met,
)
from benchmarks.statistics import Spread

HEADINGS = (
    "c",
    "path",
    "tok/s",
    "TTFT p50 ms",
    "TTFT p99 ms (n)",
    "TPOT p50 ms",
    "whole answer p50 s",
    "HTTP CPU ms/token",
    "throughput ratio",
    "added TTFT p50 ms",
)
# Processor seconds of a server that was up without load, in one block.
IDLE_SECONDS = 0.5
_NONE = "-"


def rows(result: PartResult) -> list[tuple[str, ...]]:
    """One row per cell, by concurrency; the columns are HEADINGS."""
    against = {(each.contender, each.concurrency): each for each in result.comparisons}
    order = [contender.name for contender in result.part.contenders]
    cells = sorted(result.cells, key=lambda each: (each.concurrency, order.index(each.contender)))
    return [_row(each, against.get((each.contender, each.concurrency)), result) for each in cells]


def _row(cell: Cell, comparison: Comparison | None, result: PartResult) -> tuple[str, ...]:
    ratio = added = "baseline"
    if comparison is not None:
        ratio = _spread(comparison.throughput_ratio, "{:.3f}")
        added = _spread(comparison.added_ttft_seconds, "{:+.1f}", scale=1000)
    num_ttft = f" ({cell.answered})"
    p99 = _number(cell.ttft_p99_seconds, "{:.0f}", scale=1000)
    return (
        str(cell.concurrency),
        result.contender(cell.contender).title,
        _spread(cell.output_tok_s, "{:.1f}"),
        _number(cell.ttft_p50_seconds, "{:.1f}", scale=1000),
        p99 + num_ttft if p99 != _NONE else _NONE,
        _number(cell.tpot_p50_seconds, "{:.1f}", scale=1000),
        _number(cell.e2e_p50_seconds, "{:.2f}"),
        _spread(cell.http_cpu_ms_per_token, "{:.2f}"),
        ratio,
        added,
    )


def _number(value: float | None, form: str, *, scale: float = 1.0) -> str:
    return _NONE if value is None else form.format(value * scale)


def _spread(value: Spread | None, form: str, *, scale: float = 1.0) -> str:
    if value is None:
        return _NONE
    median, low, high = (form.format(each * scale) for each in (value.median, value.low, value.high))
    return f"{median} ({low} to {high})" if value.count > 1 else median


def warnings(result: PartResult) -> list[str]:
    """What a reader must know before believing the figures."""
    found = []
    failed = [cell for cell in result.cells if cell.answered < cell.attempted]
    for cell in failed:
        reasons = {
            reason
            for block in result.blocks
            if (block.contender, block.concurrency) == (cell.contender, cell.concurrency)
            for reason in block.errors
        }
        found.append(
            f"{cell.contender} at c={cell.concurrency}: {cell.attempted - cell.answered} of {cell.attempted} "
            f"requests failed ({'; '.join(sorted(reasons))[:300]}); latencies are of the others"
        )
    noisy = [block for block in result.blocks if is_noisy(block)]
    if noisy:
        worst = max(block.cost.foreign_cpu_share for block in noisy)
        found.append(
            f"{len(noisy)} of {len(result.blocks)} blocks ran while something else used more than "
            f"{NOISY_SHARE:.0%} of the machine (up to {worst:.0%}): run it again on a quiet machine"
        )
    idle = max((block.cost.idle_servers_cpu_seconds for block in result.blocks), default=0.0)
    if idle > IDLE_SECONDS:
        found.append(f"a server without load used up to {idle:.1f} s of processor time during a block")
    if " to " in _prompt_tokens(result):
        found.append(f"prompts are not equally long: {_prompt_tokens(result)} tokens")
    return found


def verdicts(result: PartResult) -> list[str]:
    """Each comparison of the part `equal` against the targets, as it came out."""
    if result.part.name != "equal":
        return []
    words = {True: "met", False: "MISSED", None: "undecided, the machine was busy"}
    ratio, added_ms = THROUGHPUT_RATIO_TARGET, 1000 * ADDED_TTFT_TARGET_SECONDS
    return [
        f"c={each.concurrency} {result.contender(each.contender).title}: throughput at least {ratio:g} of the "
        f"stock server's: {words[throughput_met(each)]}; TTFT p50 at most {added_ms:g} ms more: "
        f"{words[ttft_met(each)]}"
        for each in result.comparisons
    ]


def print_report(result: RunResult, console: Console) -> None:
    """Tables for the terminal."""
    for part in result.parts:
        table = Table(*HEADINGS, title=part.part.title, caption=_reading(part))
        for row in rows(part):
            table.add_row(*row)
        console.print(table)
        for line in verdicts(part):
            console.print(line, highlight=False)
        for line in warnings(part):
            console.print(f"[yellow]warning[/] {line}", highlight=False)


def markdown(result: RunResult) -> str:
    """The entry for benchmarks/LOG.md."""
    lines = [
        f"## {result.started:%Y-%m-%d}: gateway overhead",
        "",
        f"`{result.command}`",
        "",
        result.surroundings.line() + ".",
    ]
    for part in result.parts:
        lines += ["", f"### {part.part.title}", "", _load(part), *_settings(part), ""]
        lines += _table(HEADINGS, rows(part))
        lines += ["", _reading(part), ""]
        lines += [f"- {line}" for line in (*verdicts(part), *warnings(part))]
    return "\n".join(lines).rstrip() + "\n"


def _load(result: PartResult) -> str:
    plan, part = result.plan, result.part
    return (
        f"Closed loop; prompts of {_prompt_tokens(result)} tokens, none sent "
        f"twice; answers of exactly {plan.max_tokens} tokens, greedy; {plan.rounds} rounds, "
        + (
            "all servers up, one under load at a time."
            if part.together
            else "servers started anew each round."
        )
    )


def _prompt_tokens(result: PartResult) -> str:
    counts = sorted({number for block in result.blocks for number in block.prompt_tokens})
    if not counts:
        return "an unknown number of"
    return str(counts[0]) if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"


def _settings(result: PartResult) -> list[str]:
    if not result.part.settings:
        return []
    chosen = "; ".join(f"{name} = {value}" for name, value in result.part.settings.items() if name != "model")
    return ["", f"Engine settings of both servers: {chosen}."]


def _reading(result: PartResult) -> str:
    baseline = result.contender(result.part.baseline).title
    return (
        f"median (least to greatest) over rounds; ratios and added times are of pairs in the same round, against "
        f"{baseline}; p99 of n < 1000 requests is close to the slowest one"
    )


def _table(headings: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(headings) + " |", "|" + " --- |" * len(headings)]
    return lines + ["| " + " | ".join(row) + " |" for row in body]
