"""The report as Markdown."""

from __future__ import annotations

from benchmarks.quantisation.report import Report
from benchmarks.quantisation.table import Table
from benchmarks.quantisation.tables import report_tables


def markdown(report: Report) -> str:
    """The whole document."""
    lines = [f"# What quantising {report.base} costs", "", *(f"{line}\n" for line in opening(report))]
    for table in report_tables(report):
        lines += [f"## {table.title}", ""]
        lines += [table.intro, ""] if table.intro else []
        lines += _table(table)
        lines += ["", *(f"- {note}" for note in table.notes)] if table.notes else []
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def opening(report: Report) -> list[str]:
    """What a reader must know first, as paragraphs."""
    text = [f"Made by `{report.command}`, {report.created}."]
    text += [
        f"{label}: {figures.machine.line}."
        + (f" Simulated: a processor with {figures.machine.isa} alone." if figures.machine.isa else "")
        for label, figures in report.machines.items()
    ]
    text.append(
        f"The original is {report.base} with the adapter {report.adapter} merged in: the bare default base came "
        "from 4-bit weights, lies on a 4-bit grid already, and figures on it would flatter 4-bit. Where the "
        "unmerged base is measured, with the adapter on top, the report says so. Every figure was measured; "
        "what is missing was not."
    )
    if report.quick:
        text.append("**A quick try:** one round and a few prompts. Nothing here is to be quoted.")
    return text + [f"Note: {note}" for note in report.notes]


def _table(table: Table) -> list[str]:
    rows = [[cell.replace("|", "\\|") for cell in row] for row in table.rows]
    head = ["| " + " | ".join(table.headings) + " |", "|" + " --- |" * len(table.headings)]
    return head + ["| " + " | ".join(row) + " |" for row in rows]
