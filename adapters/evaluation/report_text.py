"""A report as text: figures in their units, Markdown, and a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters.evaluation.metrics.metric import Unit
from adapters.evaluation.report import EvaluationReport, Figure, Score, Who

if TYPE_CHECKING:
    from rich.table import Table

ABSENT = "–"
# Digits after the point; shares are shown in percent.
_DIGITS: dict[Unit, int] = {"share": 1, "score": 3, "points": 1, "levels": 2, "perplexity": 2}


def value_text(value: float | None, unit: Unit, *, signed: bool = False) -> str:
    """A number in its unit, without the interval."""
    if value is None:
        return ABSENT
    shown = 100 * value if unit == "share" else value
    sign = "+" if signed else ""
    digits = _perplexity_digits(abs(shown)) if unit == "perplexity" else _DIGITS[unit]
    text = f"{shown:{sign},.{digits}f}" if abs(shown) < 1e9 else f"{shown:{sign}.2e}"
    if text.lstrip("+-").strip("0.,") == "":  # no minus before a zero
        text = text.replace("-", "+" if signed else "")
    return f"{text} %" if unit == "share" and not signed else text


def _perplexity_digits(value: float) -> int:
    """Four figures or so: near 1 every digit counts, in the thousands none does."""
    return 3 if value < 10 else 1 if value < 1000 else 0


def score_text(score: Score | None, unit: Unit, *, signed: bool = False) -> str:
    """A score with its interval: `95.2 % (93.0–96.8)`."""
    if score is None or score.value is None:
        return ABSENT
    text = value_text(score.value, unit, signed=signed)
    if score.low is None or score.high is None:
        return text
    low, high = (
        value_text(bound, unit, signed=signed).removesuffix(" %") for bound in (score.low, score.high)
    )
    return f"{text} ({low}{' to ' if signed else '–'}{high})"


def verdict(figure: Figure) -> str:
    """`better`, `worse`, or `` where the interval of the difference holds zero."""
    difference = figure.difference
    if difference is None or difference.low is None or difference.high is None:
        return ""
    if difference.low <= 0 <= difference.high:
        return ""
    return "better" if (difference.low > 0) == figure.higher_is_better else "worse"


def notes_of(report: EvaluationReport) -> list[str]:
    """Notes of the report and of its figures, each once, in order."""
    lines = list(report.notes)
    for figure in report.figures:
        speakers: dict[str, list[Who]] = {}
        for one in report.systems:
            score = figure.of(one.who)
            if score is not None and score.note:
                speakers.setdefault(score.note, []).append(one.who)
        for note, who in speakers.items():
            whose = "" if len(who) == len(report.systems) else f", {' and '.join(who)}"
            lines.append(f"{figure.title}{whose}: {note}")
    return lines


def headings(report: EvaluationReport) -> list[str]:
    """Column titles of the table of figures."""
    shown = [who for who in ("base", "adapter") if any(one.who == who for one in report.systems)]
    return ["metric", *shown, *(["difference"] if len(shown) == 2 else [])]


def row_of(figure: Figure, columns: list[str]) -> list[str]:
    """One line of the table of figures."""
    cells = {
        "metric": figure.title,
        "base": score_text(figure.base, figure.unit),
        "adapter": score_text(figure.adapter, figure.unit),
        "difference": score_text(figure.difference, figure.unit, signed=True),
    }
    return [cells[column] for column in columns]


def terminal_table(report: EvaluationReport) -> Table:
    """The figures for the terminal, 80 columns wide; the interval of the difference is in the report files."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    columns = headings(report)
    caption = "in brackets the 95 % interval" + (
        "; ? where that of the difference holds zero" if "difference" in columns else ""
    )
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, caption=caption)
    for column in columns:
        table.add_column(column, no_wrap=True)
    for figure in report.figures:
        cells = [escape(cell) for cell in row_of(figure, columns)]
        if "difference" in columns:
            cells[-1] = _difference_cell(figure)
        table.add_row(*cells)
    return table


def _difference_cell(figure: Figure) -> str:
    if figure.difference is None:
        return ABSENT
    text = value_text(figure.difference.value, figure.unit, signed=True)
    judged = verdict(figure)
    colour = {"better": "green", "worse": "red", "": "dim"}[judged]
    return f"{text} [{colour}]{judged or '?'}[/]"


def markdown(report: EvaluationReport) -> str:
    """The report as Markdown: figures, mistakes, facts. Texts of the data stay out of it."""
    columns = headings(report)
    lines = ["# Evaluation", "", f"{report.num_examples} examples, {report.created}.", ""]
    lines += [_line(columns), _line(["---"] * len(columns))]
    lines += [_line(row_of(figure, columns)) for figure in report.figures]
    lines += ["", "In brackets the 95 % interval: Wilson's for shares, bootstrap for the rest."]
    if report.mistakes:
        lines += ["", "## Mistakes", "", _line(["kind", "base", "adapter", "what it is"]), _line(["---"] * 4)]
        lines += [
            _line([group.title, _count(group.base), _count(group.adapter), group.explanation])
            for group in report.mistakes
        ]
    lines += ["", "## How it was made", ""]
    lines += [f"- {name}: {_plain(value)}" for name, value in (*report.facts, *system_lines(report))]
    notes = notes_of(report)
    if notes:
        lines += ["", "## Notes", "", *(f"- {_plain(note)}" for note in notes)]
    return "\n".join(lines) + "\n"


def system_lines(report: EvaluationReport) -> list[tuple[str, str]]:
    """Who answered, how much, how fast."""
    return [
        (
            one.who,
            f"{one.name}: {one.num_answers} answers, {one.num_tokens} tokens in {one.seconds:.1f} s"
            + (f" ({one.num_tokens / one.seconds:.0f} tokens/s)" if one.seconds > 0 else ""),
        )
        for one in report.systems
    ]


def _count(number: int | None) -> str:
    return ABSENT if number is None else str(number)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(_plain(cell) for cell in cells)} |"


def _plain(text: str) -> str:
    """A text on one line that Markdown takes as text."""
    flat = " ".join(text.split())
    for sign in "\\`*_[]<>|#":
        flat = flat.replace(sign, f"\\{sign}")
    return flat
