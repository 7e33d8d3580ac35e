"""Where a report goes: the page, and the JSON and Markdown beside it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from adapters.errors import EvaluationError
from adapters.evaluation.report import EvaluationReport
from bases.disk import check_writable


def report_paths(page: Path) -> tuple[Path, Path, Path]:
    """The page, the JSON and the Markdown beside it."""
    return page, page.with_suffix(".json"), page.with_suffix(".md")


def write_report(report: EvaluationReport, page: Path, *, force: bool) -> tuple[Path, Path, Path]:
    """Write the three files, each in one step. Raises EvaluationError for one that is there, unless `force`."""
    from adapters.evaluation.page import render_page
    from adapters.evaluation.report_text import markdown

    paths = report_paths(page)
    texts = (render_page(report).encode(), report.to_json(), markdown(report).encode())
    check_place(page, force=force)
    for path, text in zip(paths, texts, strict=True):
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(text)
            partial.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise _unwritable(path, error) from None
    return paths


def check_place(page: Path, *, force: bool) -> None:
    """Raise EvaluationError where the report could not be written, or, unless `force`, where one is there."""
    there = [path.name for path in report_paths(page) if path.exists()]
    if there and not force:
        raise EvaluationError(
            f"{', '.join(there)} in {str(page.parent)!r} exist already; name another --report, or --force to "
            "overwrite"
        )
    try:
        check_writable(page.parent)
    except OSError as error:
        raise _unwritable(page, error) from None


def _unwritable(path: Path, error: OSError) -> EvaluationError:
    return EvaluationError(
        f"the report {str(path)!r} cannot be written: {error.strerror}; name another place with --report"
    )
