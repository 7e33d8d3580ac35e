"""Writes the report as page, Markdown and JSON, and shows its tables in the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.closed_loop.errors import PlanError
from benchmarks.quantisation.markdown import markdown
from benchmarks.quantisation.page import render_page
from benchmarks.quantisation.report import Report
from benchmarks.quantisation.tables import report_tables


def publish(report: Report, page: Path) -> tuple[Path, Path, Path]:
    """Write the three files; earlier ones are replaced. Raises PlanError where they cannot be written."""
    paths = page.with_suffix(".html"), page.with_suffix(".md"), page.with_suffix(".json")
    texts = render_page(report), markdown(report), report.model_dump_json(indent=1) + "\n"
    for path, text in zip(paths, texts, strict=True):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise PlanError(
                f"the report {str(path)!r} cannot be written: {error.strerror}; name another place with --report"
            ) from None
    return paths


def print_report(report: Report, console: Console) -> None:
    """Every table, on standard output."""
    for table in report_tables(report):
        shown = RichTable(*table.headings, title=table.title)
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
        for note in table.notes:
            console.print(f"note: {note}", highlight=False, markup=False)
