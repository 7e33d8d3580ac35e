"""The report of a suite: one HTML page that needs nothing but itself, and the same as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.report.drawing import Plot, write_pngs
from benchmarks.load.report.markdown import table_lines
from benchmarks.load.report.page import load_pages
from benchmarks.load.report.table import Table
from benchmarks.load.report.tables import definitions_table, findings_of
from benchmarks.load.run import RunResult
from benchmarks.load.suite.headlines import name_of
from benchmarks.load.suite.parts import BY_KEY, Part
from benchmarks.load.suite.plots import part_plots
from benchmarks.load.suite.result import SuiteResult, write_suite
from benchmarks.load.suite.tables import (
    conditions_table,
    headline_table,
    headlines_of,
    missing_lines,
    part_tables,
)

_TEMPLATE = "suite/page.html.j2"


@dataclass(frozen=True, slots=True)
class Section:
    """One part as the page shows it."""

    part: Part
    findings: Sequence[tuple[bool, str]]
    plots: Sequence[Plot]
    tables: Sequence[Table]


def write_report(result: SuiteResult, runs: Mapping[str, Sequence[RunResult]], folder: Path) -> None:
    """`report.html`, `report.md`, `result.json`, `requests.jsonl`, and each plot as PNG in `plots`, in `folder`."""
    write_suite(result, runs, folder)
    (folder / "report.md").write_text(render_markdown(result), encoding="utf-8")
    sections = _sections(result, runs, png=True)
    (folder / "report.html").write_text(_page(result, sections), encoding="utf-8")
    write_pngs([plot for section in sections for plot in section.plots], folder / "plots")


def render_page(result: SuiteResult, runs: Mapping[str, Sequence[RunResult]]) -> str:
    """The whole page."""
    return _page(result, _sections(result, runs))


def _page(result: SuiteResult, sections: Sequence[Section]) -> str:
    return (
        load_pages()
        .get_template(_TEMPLATE)
        .render(
            title=title_of(result),
            result=result,
            missing=missing_lines(result),
            tiles=headlines_of(result),
            sections=sections,
            conditions=[conditions_table(result), definitions_table()],
        )
    )


def render_markdown(result: SuiteResult) -> str:
    """The whole report."""
    lines = [f"# {title_of(result)}", "", *(f"**{line}**\n" for line in missing_lines(result))]
    for table in (headline_table(result), conditions_table(result)):
        lines += [f"## {table.title}", "", *table_lines(table), ""]
    for key, measurement in result.parts.items():
        part = BY_KEY[key]
        lines += [f"## {part.title}", "", part.question, ""]
        lines += [
            f"- **{'INVALID' if bad else 'Note'}:** {text}" for bad, text in findings_of(measurement, name_of)
        ]
        for table in part_tables(measurement):
            lines += ["", f"### {table.title}", "", *table_lines(table)]
        lines.append("")
    words = definitions_table()
    lines += [f"## {words.title}", "", *table_lines(words), ""]
    return "\n".join(lines).replace("\n\n\n", "\n\n")


def title_of(result: SuiteResult) -> str:
    """What was measured."""
    return f"Load on {result.gateway['base']} with {len(result.gateway['ranks'])} adapters"


def _sections(
    result: SuiteResult, runs: Mapping[str, Sequence[RunResult]], *, png: bool = False
) -> list[Section]:
    return [
        Section(
            BY_KEY[key],
            findings_of(measurement, name_of),
            part_plots(key, BY_KEY[key].plots, measurement, runs.get(key, ()), png=png),
            part_tables(measurement),
        )
        for key, measurement in result.parts.items()
    ]
