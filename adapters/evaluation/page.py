"""A report as one HTML page that needs nothing but itself: no scripts, no fonts, no addresses.

Texts of the data are hostile until escaped: the template escapes everything, and a policy in the page forbids the
browser to run or fetch anything, should one slip through.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapters.evaluation.page_environment import page_environment
from adapters.evaluation.report import Confusion, EvaluationReport, Figure, Lengths, Who
from adapters.evaluation.report_text import (
    headings,
    notes_of,
    score_text,
    system_lines,
    value_text,
    verdict,
)

_TEMPLATE = "page.html.j2"
_HISTOGRAM_HEIGHT = 120
# The first of these that were measured stand large at the top.
_LEADING = ("accuracy", "macro_f1", "false_alarms", "auc", "exact_match", "perplexity", "rouge_l", "bleu")
_NUM_TILES = 4
_LIGHT_CELL = 0.55  # above this share of its row a cell is dark enough for light text


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the confusion matrix: `share` is of its row."""

    count: int
    share: float
    diagonal: bool

    @property
    def inverted(self) -> bool:
        """Whether its colour is strong enough to ask for light text."""
        return self.share > _LIGHT_CELL


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of the histogram in units of the drawing."""

    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True, slots=True)
class LabelBar:
    """F1 of one label, base and adapter, as shares of the full width."""

    label: str
    support: int
    base: float | None
    adapter: float | None


def render_page(report: EvaluationReport) -> str:
    """The whole page."""
    environment = page_environment(Path(__file__).parent)
    environment.globals.update(score_text=score_text, value_text=value_text, verdict=verdict)
    columns = headings(report)
    return environment.get_template(_TEMPLATE).render(
        report=report,
        whos=[column for column in columns if column in ("base", "adapter")],
        two="difference" in columns,
        matrices=[(matrix, cells_of(matrix)) for matrix in report.confusions],
        label_bars=label_bars(report),
        histogram=histogram(report.lengths) if report.lengths is not None else {},
        histogram_height=_HISTOGRAM_HEIGHT,
        systems=system_lines(report),
        tiles=leading_figures(report),
        notes=notes_of(report),
    )


def leading_figures(report: EvaluationReport) -> list[Figure]:
    """The figures that a reader looks for first."""
    found = (report.figure(name) for name in _LEADING)
    return [figure for figure in found if figure is not None][:_NUM_TILES]


def cells_of(matrix: Confusion) -> list[list[Cell]]:
    """Rows of cells; a row without examples has shares of 0."""
    return [
        [
            Cell(count, count / sum(row) if sum(row) else 0.0, row_place == place)
            for place, count in enumerate(row)
        ]
        for row_place, row in enumerate(matrix.counts)
    ]


def label_bars(report: EvaluationReport) -> list[LabelBar]:
    """F1 of every label of both systems, in the labels' order."""
    by_who = {matrix.who: {one.label: one for one in matrix.by_label} for matrix in report.confusions}
    if not by_who:
        return []
    first = next(iter(by_who.values()))

    def f1(who: Who, label: str) -> float | None:
        return by_who[who][label].f1 if who in by_who else None

    return [
        LabelBar(label, one.support, f1("base", label), f1("adapter", label)) for label, one in first.items()
    ]


def histogram(lengths: Lengths) -> dict[str, list[Bar]]:
    """Bars of each of the series that has any answers, side by side in every bin; one unit wide a bin."""
    series = {"reference": lengths.reference, "base": lengths.base, "adapter": lengths.adapter}
    shown = {name: counts for name, counts in series.items() if any(counts)}
    tallest = max((max(counts) for counts in shown.values()), default=0) or 1
    bin_width = 100 / (len(lengths.edges) - 1)
    width = bin_width * 0.86 / max(1, len(shown))
    made: dict[str, list[Bar]] = {}
    for place, (name, counts) in enumerate(shown.items()):
        made[name] = []
        for index, count in enumerate(counts):
            height = _HISTOGRAM_HEIGHT * count / tallest
            last = index == len(counts) - 1
            until = "and more" if last else f"to {lengths.edges[index + 1] - 1}"
            made[name].append(
                Bar(
                    x=index * bin_width + bin_width * 0.07 + place * width,
                    y=_HISTOGRAM_HEIGHT - height,
                    width=width,
                    height=height,
                    title=f"{name}: {count} of {lengths.edges[index]} {until} characters",
                )
            )
    return made
