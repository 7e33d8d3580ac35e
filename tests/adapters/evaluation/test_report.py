from __future__ import annotations

import json

import pytest
from rich.console import Console

from adapters.errors import EvaluationError
from adapters.evaluation.answer import Likelihood, Unavailable
from adapters.evaluation.evaluate import evaluate
from adapters.evaluation.plan import EvaluationPlan
from adapters.evaluation.report import EvaluationReport, Figure, Score
from adapters.evaluation.report_text import (
    markdown,
    notes_of,
    score_text,
    terminal_table,
    value_text,
    verdict,
)
from tests.adapters.evaluation.conftest import PATTERN, ScriptedAnswerer, no_stage, risk


def make_report(*, adapter=True, say=lambda question: question.reference):
    examples = [risk(level, line=level + 1) for level in range(6)]
    base = ScriptedAnswerer(
        lambda _: "Risk: 5", name="tiny", likelihoods=Unavailable("no | logprobs\nof a prompt")
    )
    return evaluate(
        examples,
        base=base,
        adapter=ScriptedAnswerer(say, name="risk@1", likelihoods=[Likelihood(1.0, 3)] * 6)
        if adapter
        else None,
        plan=EvaluationPlan(label_pattern=PATTERN, false_alarm="0-1:4-5", bootstrap_samples=100),
        facts=[("data", "held-out.jsonl")],
        stage=no_stage,
    )


def test_json_gives_the_report_back():
    report = make_report()
    assert EvaluationReport.from_json(report.to_json()) == report


def test_json_names_its_schema_and_holds_plain_values():
    written = json.loads(make_report().to_json())
    assert written["schema_version"] == 1
    accuracy = next(figure for figure in written["figures"] if figure["name"] == "accuracy")
    assert accuracy["adapter"]["value"] == 1.0
    perplexity = next(figure for figure in written["figures"] if figure["name"] == "perplexity")
    assert perplexity["base"]["value"] is None


def test_another_schema_and_another_file_are_refused():
    written = json.loads(make_report().to_json())
    with pytest.raises(EvaluationError, match="has schema 99"):
        EvaluationReport.from_json(json.dumps(written | {"schema_version": 99}).encode())
    with pytest.raises(EvaluationError, match="no evaluation report"):
        EvaluationReport.from_json(b"[]")
    del written["figures"]
    with pytest.raises(EvaluationError, match="figures"):
        EvaluationReport.from_json(json.dumps(written).encode())


@pytest.mark.parametrize(
    ("value", "unit", "signed", "text"),
    [
        (0.9724, "share", False, "97.2 %"),
        (-0.006, "share", True, "-0.6"),
        (-0.0001, "share", True, "+0.0"),
        (0.5, "score", False, "0.500"),
        (37.06, "points", False, "37.1"),
        (1.1485, "perplexity", False, "1.149"),
        (5637.86, "perplexity", False, "5,638"),
        (3e12, "perplexity", False, "3.00e+12"),
        (None, "share", False, "–"),
    ],
)
def test_figures_are_written_in_their_unit(value, unit, signed, text):
    assert value_text(value, unit, signed=signed) == text


def test_a_score_is_written_with_its_interval():
    assert score_text(Score(0.952, 0.93, 0.968, 500), "share") == "95.2 % (93.0–96.8)"
    assert score_text(Score(0.1, -0.01, 0.2, 500), "score", signed=True) == "+0.100 (-0.010 to +0.200)"
    assert score_text(Score(0.5, None, None, 1), "score") == "0.500"
    assert score_text(None, "score") == "–"


@pytest.mark.parametrize(
    ("low", "high", "higher", "expected"),
    [
        (0.1, 0.2, True, "better"),
        (0.1, 0.2, False, "worse"),
        (-0.2, -0.1, False, "better"),
        (-0.1, 0.1, True, ""),
    ],
)
def test_a_difference_counts_where_its_interval_leaves_out_zero(low, high, higher, expected):
    figure = Figure("x", "X", "score", higher, None, None, Score((low + high) / 2, low, high, 9))
    assert verdict(figure) == expected


def test_the_terminal_table_fits_80_columns_and_shows_all_figures():
    report = make_report()
    console = Console(width=80, record=True, file=None, force_terminal=False)
    with console.capture() as capture:
        console.print(terminal_table(report))
    lines = capture.get().splitlines()
    for figure in report.figures:
        assert any(line.strip().startswith(figure.title) for line in lines)
    assert "…" not in capture.get()
    assert "+83.3 better" in capture.get()


def test_markdown_has_the_figures_and_keeps_the_table_whole():
    text = markdown(make_report())
    rows = [line for line in text.splitlines() if line.startswith("| Accuracy")]
    assert len(rows) == 1
    assert "100.0 %" in rows[0]
    assert "83.3" in rows[0]
    assert "no \\| logprobs of a prompt" in text
    widths = {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("| ")}
    assert widths == {5}


def test_a_base_alone_has_no_columns_for_an_adapter():
    report = make_report(adapter=False)
    assert "| metric | base |" in markdown(report)
    assert all("adapter" not in note for note in notes_of(report))
