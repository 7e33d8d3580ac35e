"""The result for people: a Markdown entry for benchmarks/LOG.md, which the terminal shows, too."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.agreement.comparison import ALLOWED, Pair, Verdict
from benchmarks.agreement.tool import Tool
from benchmarks.agreement.workload import Workload
from benchmarks.statistics import Spread, spread
from benchmarks.surroundings import Surroundings

_NAMES = {"ttft_seconds": "TTFT p50 from sending, ms", "tpot_seconds": "TPOT p50 without the first token, ms"}


def markdown(
    tool: Tool,
    workload: Workload,
    pairs: Sequence[Pair],
    found: Sequence[Verdict],
    *,
    server: str,
    truth: dict[str, float],
    command: str,
    date: str,
    surroundings: Surroundings,
) -> str:
    """The entry. `truth`: what the server's script says, by metric, in seconds; empty for a model."""
    known = ["known"] if truth else []
    lines = [
        f"## {date}: agreement with {tool.name}",
        "",
        f"`{command}`",
        "",
        surroundings.line() + ".",
        "",
        f"{server}; {workload.arrivals.text}, prompts of {workload.prompt_tokens} tokens, answers of "
        f"{workload.answer_tokens}, streamed from `/v1/completions` for {workload.seconds:g} s; "
        f"{len(pairs)} rounds, `hotswap bench run` and {tool.requirement} in turns.",
        "",
        _row(["", *known, "hotswap bench", tool.name, "ratio", f"within {ALLOWED:.0%}"]),
        _row(["---"] * (5 + len(known))),
    ]
    for one in found:
        known = [f"{1000 * truth[one.metric]:g}"] if truth else []
        cells = [_NAMES[one.metric], *known, _text(one.ours, 1000.0, ".1f"), _text(one.theirs, 1000.0, ".1f")]
        lines.append(_row([*cells, _text(one.ratio, 1.0, ".3f"), "yes" if one.agrees else "NO"]))
    counts = [(p.ours.requests, p.theirs.requests, p.ours.failed, p.theirs.failed) for p in pairs]
    lines += ["", f"- {tool.name}: {tool.definitions}"]
    for name in pairs[0].theirs.as_called:
        values = spread([pair.theirs.as_called[name] for pair in pairs])
        lines.append(
            f"- {tool.name}, {name}: {_text(values, 1000.0, '.1f')} ms{_expected(name, workload, found)}"
        )
    ours, theirs, our_failed, their_failed = (sum(column) for column in zip(*counts, strict=True))
    lines.append(
        f"- answered: {ours} of ours ({our_failed} failed), {theirs} of {tool.name}'s ({their_failed} failed); "
        f"median prompt by the server's count: {pairs[0].ours.prompt_tokens:g} and "
        f"{pairs[0].theirs.prompt_tokens:g} tokens"
    )
    return "\n".join(lines) + "\n"


def _expected(name: str, workload: Workload, found: Sequence[Verdict]) -> str:
    """What our medians make of a TPOT that holds the first token."""
    if "with the first token" not in name:
        return ""
    ttft, tpot = (one.ours.median for one in found)
    tokens = workload.answer_tokens
    value = 1000 * (ttft + (tokens - 1) * tpot) / tokens
    return f"; ours by that definition: {value:.1f}"


def _text(found: Spread, scale: float, form: str) -> str:
    median, low, high = (format(scale * value, form) for value in (found.median, found.low, found.high))
    return f"{median} ({low} to {high})" if found.count > 1 else median


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
