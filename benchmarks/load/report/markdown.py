"""A report as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.load.report.drawing import Plot, file_name
from benchmarks.load.report.overload_tables import overload_lines
from benchmarks.load.report.swap_tables import swap_lines
from benchmarks.load.report.table import Table
from benchmarks.load.report.tables import findings_of, report_tables
from benchmarks.load.result_file import Measurement


def render_markdown(measurement: Measurement, plots: Sequence[Plot] = ()) -> str:
    """The whole report; `plots` lie as pictures in the folder `plots` beside it."""
    lines = [f"# {title_of(measurement)}", ""]
    lines += [
        f"- **{'INVALID' if invalid else 'Note'}:** {text}" for invalid, text in findings_of(measurement)
    ]
    lines += ["", *conclusion_of(measurement), ""]
    for plot in plots:
        lines += [f"![{plot.title}](plots/{file_name(plot)}.png)", "", plot.caption, ""]
    for table in report_tables(measurement):
        lines += [f"## {table.title}", "", *table_lines(table), ""]
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def table_lines(table: Table) -> list[str]:
    """One table, and its notes."""
    lines = [_row(table.headings), _row(["---"] * len(table.headings)), *map(_row, table.rows)]
    return [*lines, *(f"\n{note}" for note in table.notes)]


def title_of(measurement: Measurement) -> str:
    """What was measured."""
    return f"Load on {measurement.target['base']}: {measurement.mode}"


def conclusion_of(measurement: Measurement) -> list[str]:
    """What a search found, what swaps cost, or what was left beyond the capacity; empty for other modes."""
    found = measurement.conclusion
    if "swap" in found:
        return swap_lines(found)
    if "capacity_req_s" in found:
        return overload_lines(found)
    if "attainment" not in found:
        return []
    wanted = f"{found['attainment']:.0%} of requests within {measurement.slo['name']}"
    if found.get("rate") is None:
        return [f"No rate that was tried holds {wanted}."]
    return [
        f"**{found['rate']:.2f} requests per second** is the highest rate that was seen to hold {wanted}"
        + (
            f"; {found['failed_rate']:.2f} did not."
            if found.get("failed_rate")
            else "; none was seen to fail."
        )
    ]


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
