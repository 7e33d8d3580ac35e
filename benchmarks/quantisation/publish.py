"""Writes the report as page, Markdown and JSON, and shows its tables in the terminal."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.errors import PlanError
from benchmarks.quantisation.by_hand import with_kept_parts
from benchmarks.quantisation.markdown import markdown
from benchmarks.quantisation.page import render_page
from benchmarks.quantisation.report import Report
from benchmarks.quantisation.tables import report_tables


def publish(report: Report, page: Path) -> tuple[Path, Path, Path]:
    """Write the three files; of earlier ones stays what was written by hand into the Markdown.

    Each is replaced in one step. Raises PlanError where they cannot be written, and for marks that are no pairs.
    """
    paths = page.with_suffix(".html"), page.with_suffix(".md"), page.with_suffix(".json")
    document = with_kept_parts(markdown(report), _earlier(paths[1]), name=paths[1].name)
    texts = render_page(report), document, report.model_dump_json(indent=1) + "\n"
    for path, text in zip(paths, texts, strict=True):
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise PlanError(
                f"the report {str(path)!r} cannot be written: {error.strerror}; name another place with --report"
            ) from None
    return paths


def _earlier(path: Path) -> str:
    """The document as it is now; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(
            f"{str(path)!r} cannot be read, so that what was written into it by hand would be lost: {error}"
        ) from None


def print_report(report: Report, console: Console) -> None:
    """Every table, on standard output."""
    for table in report_tables(report):
        shown = RichTable(*table.headings, title=table.title)
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
        for note in table.notes:
            console.print(f"note: {note}", highlight=False, markup=False)
