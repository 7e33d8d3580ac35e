"""The report as one HTML page that needs nothing but itself: no scripts, no fonts, no addresses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapters.evaluation.page_environment import page_environment
from benchmarks.quantisation.markdown import opening
from benchmarks.quantisation.plots import quality_against_size, quality_against_speed
from benchmarks.quantisation.report import Report
from benchmarks.quantisation.tables import report_tables

_TEMPLATE = "page.html.j2"


@dataclass(frozen=True, slots=True)
class Plot:
    """`svg` was made here and is put into the page as it is."""

    title: str
    svg: str


def render_page(report: Report) -> str:
    """The whole page."""
    return (
        page_environment(Path(__file__).parent)
        .get_template(_TEMPLATE)
        .render(
            report=report,
            opening=[paragraph.replace("**", "").replace("`", "") for paragraph in opening(report)],
            tables=report_tables(report),
            plots=plots_of(report),
        )
    )


def plots_of(report: Report) -> list[Plot]:
    """Those that have a point."""
    found = [Plot("Quality against size", quality_against_size(report))]
    for label in report.machines:
        where = f" ({label})" if len(report.machines) > 1 else ""
        found.append(Plot(f"Quality against speed{where}", quality_against_speed(report, label)))
    return [plot for plot in found if plot.svg]
