"""Inspections drawn for a terminal; every text of an example is shown as text, whatever signs are in it."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from adapters.data.funnel import Funnel, FunnelRow
from adapters.data.inspect import Lengths, Sample, TokenView
from adapters.data.prepare import PreparedData
from adapters.data.step import Finding

_BAR_COLUMNS = 40
_SHOWN_CHARACTERS = 280
_SHOWN_KINDS = 12
# Signs that turn the direction of what follows, and so could show one text as another.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")


def show_funnel(console: Console, funnel: Funnel) -> None:
    """One row per step, then its kinds; columns in which nothing stands are left out."""
    table = Table(title="Funnel", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("step", no_wrap=True)
    columns = {
        "before": [row.before for row in funnel.rows],
        "removed": [row.removed for row in funnel.rows],
        "after": [row.after for row in funnel.rows],
        "changed": [row.changed for row in funnel.rows],
        "flagged": [row.flagged for row in funnel.rows],
    }
    shown = {name: numbers for name, numbers in columns.items() if any(numbers)}
    for name in (*shown, "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for index, row in enumerate(funnel.rows):
        cells = [f"{numbers[index]:,}" if numbers[index] else "" for numbers in shown.values()]
        table.add_row(row.step, *cells, f"{row.seconds:.1f}")
    console.print(table)
    for row in funnel.rows:
        if kinds := _kinds(row):
            console.print(Text(f"{row.step}: {_printable(kinds)}", style="dim"), soft_wrap=True)


def _kinds(row: FunnelRow) -> str:
    if row.step == "labels" and not row.changed:  # its kinds are the labels, which have a table of their own
        return ""
    listed = ", ".join(f"{kind} {count:,}" for kind, count in row.counts[:_SHOWN_KINDS])
    return listed + (", ..." if len(row.counts) > _SHOWN_KINDS else "")


def show_lengths(console: Console, lengths: Lengths) -> None:
    """A bar for each range of lengths."""
    console.print(
        f"\nLength in {lengths.unit}: median {lengths.median:,}, 95 % at most {lengths.percentile_95:,}, "
        f"longest {lengths.longest:,}, together {lengths.total:,}",
        style="bold",
        highlight=False,
    )
    most = max(found.count for found in lengths.bins)
    names = [
        f"{found.low:,} - {found.high:,}" if found.high else f"{found.low:,} +" for found in lengths.bins
    ]
    width = max(map(len, names))
    for name, found in zip(names, lengths.bins, strict=True):
        bar = "█" * round(found.count / most * _BAR_COLUMNS) or ("▏" if found.count else "")
        console.print(f"{name:>{width}} {bar} {found.count:,}", highlight=False, no_wrap=True)


def show_labels(console: Console, counts: dict[str, dict[str, int]]) -> None:
    """How often each label stands in each split."""
    if not counts:
        return
    splits = list(next(iter(counts.values())))
    totals = {split: sum(row[split] for row in counts.values()) for split in splits}
    table = Table("label", title="Labels", title_justify="left", box=SIMPLE_HEAD)
    for split in splits:
        table.add_column(split, justify="right")
    for label, row in counts.items():
        cells = [f"{row[s]:,} ({row[s] / totals[s]:.0%})" if totals[s] else "" for s in splits]
        table.add_row(Text(_printable(label)), *cells)
    console.print(table)


def show_pairs(console: Console, row: FunnelRow | None, number: int) -> None:
    """Examples that a step removed, each beside the one it repeats."""
    pairs = [finding for finding in row.removed_findings if finding.twin] if row else []
    if not pairs or not number:
        return
    title = f"Removed: {row.step}" if row else ""
    table = Table("kept", "removed", "why", title=title, title_justify="left", show_lines=True)
    for finding in pairs[:number]:
        twin = finding.twin
        table.add_row(
            _example_text(twin.origin, twin.parts()) if twin else Text(),
            _example_text(finding.example.origin, finding.example.parts()),
            Text(_printable(finding.reason)),
        )
    console.print(table)
    _say_more(console, len(pairs) - number)


def show_findings(
    console: Console, title: str, findings: Sequence[Finding], number: int, *, hide_text: bool
) -> None:
    """Examples that a step flagged, with their reasons; `hide_text` leaves the example's own text out."""
    if not findings or not number:
        return
    columns = ["where", "why"] if hide_text else ["where", "why", "text"]
    table = Table(*columns, title=title, title_justify="left", box=SIMPLE_HEAD)
    for finding in findings[:number]:
        cells = [Text(_printable(str(finding.example.origin))), Text(_printable(finding.reason))]
        if not hide_text:
            cells.append(Text(_shortened(" ⏎ ".join(finding.example.parts()))))
        table.add_row(*cells)
    console.print(table)
    _say_more(console, len(findings) - number)


def show_tokens(console: Console, view: TokenView) -> None:
    """Samples with the learned tokens in green; where there is no colour, in ⟦brackets⟧."""
    console.print(
        f"\n{view.supervised_share:.1%} of the tokens are learned (green, or in ⟦brackets⟧ without colour)",
        style="bold",
        highlight=False,
    )
    for sample in view.samples:
        num_learned = sum(span.num_tokens for span in sample.spans if span.supervised)
        console.print(
            Text(f"{sample.origin}: {num_learned:,} of {sample.num_tokens:,} tokens learned", style="italic")
        )
        console.print(_mask(sample, is_coloured=console.color_system is not None), soft_wrap=True)


def show_warnings(console: Console, warnings: Sequence[str]) -> None:
    """One line each."""
    for warning in warnings:
        console.print(Text("warning: ", style="yellow") + Text(_printable(warning)), soft_wrap=True)


def show_splits(console: Console, prepared: PreparedData) -> None:
    """Sizes and fingerprint."""
    sizes = ", ".join(f"{split} {len(examples):,}" for split, examples in prepared.splits.items())
    console.print(f"{sizes}; fingerprint {prepared.fingerprint[:16]}", highlight=False)


def _mask(sample: Sample, *, is_coloured: bool) -> Text:
    text = Text()
    for span in sample.spans:
        shown = _printable(span.text)
        if span.supervised:
            text.append(shown if is_coloured else f"⟦{shown}⟧", style="green")
        else:
            text.append(shown, style="dim")
    return text


def _example_text(origin: object, parts: Sequence[str]) -> Text:
    return Text(f"{origin}\n", style="italic") + Text(_shortened(" ⏎ ".join(parts)))


def _shortened(text: str) -> str:
    text = _printable(text)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def _printable(text: str) -> str:
    """Text without signs that a terminal obeys."""
    return "".join(
        "\ufffd" if (unicodedata.category(sign) == "Cc" and sign not in "\n\t") or sign in _TURNING else sign
        for sign in text
    )


def _say_more(console: Console, number: int) -> None:
    if number > 0:
        console.print(f"and {number:,} more", style="dim", highlight=False)
