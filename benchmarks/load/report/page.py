"""A report as one HTML page that needs nothing but itself: no scripts, no fonts, no addresses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.evaluation.page_environment import page_environment
from benchmarks.load.report.drawing import Plot
from benchmarks.load.report.markdown import conclusion_of, title_of
from benchmarks.load.report.tables import findings_of, report_tables
from benchmarks.load.result_file import Measurement

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATE = "report/page.html.j2"


def load_pages() -> Environment:
    """The templates of a report and of the suite's (load/report/, load/suite/)."""
    return page_environment(Path(__file__).parents[1])


def render_page(measurement: Measurement, plots: Sequence[Plot]) -> str:
    """The whole page, with those plots."""
    return (
        load_pages()
        .get_template(_TEMPLATE)
        .render(
            title=title_of(measurement),
            measurement=measurement,
            conclusion=[line.replace("**", "") for line in conclusion_of(measurement)],
            findings=findings_of(measurement),
            tiles=_tiles(measurement),
            plots=plots,
            tables=report_tables(measurement),
        )
    )


def _tiles(measurement: Measurement) -> list[tuple[str, str]]:
    """The figures of a single run that are looked for first."""
    if len(measurement.runs) != 1:
        return []
    figures = measurement.runs[0]["figures"]
    tiles = [
        (f"{figures['output_tok_s']:.0f}", "tokens per second"),
        (f"{figures['goodput_req_s']:.2f}", f"good requests per second ({measurement.slo['name']})"),
        (f"{figures['slo_attainment']:.1%}", "of requests within the limits"),
    ]
    for name, label in (("ttft_seconds", "TTFT p50 / p99, ms"), ("tpot_seconds", "TPOT p50 / p99, ms")):
        if figures[name] is not None:
            tiles.append((f"{1000 * figures[name]['p50']:.0f} / {1000 * figures[name]['p99']:.0f}", label))
    return tiles
