from __future__ import annotations

import pytest

from adapters.data.example import Example, Origin
from adapters.errors import EvaluationError
from adapters.evaluation.answer import Likelihood, Unavailable
from adapters.evaluation.evaluate import evaluate
from adapters.evaluation.plan import EvaluationPlan
from tests.adapters.evaluation.conftest import PATTERN, ScriptedAnswerer, chat, no_stage, risk, said

EXAMPLES = [risk(level, line=line) for line, level in enumerate([0, 0, 1, 2, 3, 4, 5, 5], start=1)]
PLAN = EvaluationPlan(label_pattern=PATTERN, false_alarm="0-1:4-5", bootstrap_samples=200)


def right(question):
    return question.reference


def always_five(question):
    return "Reasons: night hours, new payee. Risk: 5"


def run(base=None, adapter=None, *, examples=EXAMPLES, plan=PLAN):
    return evaluate(examples, base=base, adapter=adapter, plan=plan, facts=[("data", "x")], stage=no_stage)


def test_base_and_adapter_are_asked_the_same_and_compared():
    base, adapter = ScriptedAnswerer(always_five, name="tiny"), ScriptedAnswerer(right, name="risk@1")
    report = run(base, adapter)
    assert base.asked == adapter.asked
    assert len(base.asked) == 8
    accuracy = report.figure("accuracy")
    assert accuracy is not None
    assert (accuracy.base.value, accuracy.adapter.value, accuracy.difference.value) == (0.25, 1.0, 0.75)
    assert accuracy.difference.low > 0
    assert accuracy.adapter.high == 1.0
    assert accuracy.adapter.low < 0.7
    alarms = report.figure("false_alarms")
    assert alarms is not None
    assert (alarms.base.value, alarms.adapter.value) == (3 / 8, 0.0)
    assert report.figure("false_alarms_of_low").base.value == 1.0
    assert [(one.who, one.name) for one in report.systems] == [("base", "tiny"), ("adapter", "risk@1")]


def test_the_same_evaluation_gives_the_same_report():
    first, second = (run(ScriptedAnswerer(always_five), ScriptedAnswerer(right)) for _ in range(2))
    assert first.figures == second.figures
    assert first.mistakes == second.mistakes


def test_either_may_be_evaluated_alone():
    alone = run(adapter=ScriptedAnswerer(right))
    assert alone.subject == "adapter"
    assert all(figure.base is None and figure.difference is None for figure in alone.figures)
    assert run(base=ScriptedAnswerer(right)).subject == "base"
    with pytest.raises(EvaluationError, match="neither"):
        run()


def test_mistakes_are_counted_for_both_and_shown_for_the_adapter():
    worst = lambda question: "" if question.reference.endswith("5") else question.reference  # noqa: E731
    report = run(ScriptedAnswerer(always_five), ScriptedAnswerer(worst))
    groups = {group.kind: group for group in report.mistakes}
    assert (groups["empty"].base, groups["empty"].adapter) == (0, 2)
    assert (groups["false_alarm"].base, groups["false_alarm"].adapter) == (3, 0)
    shown = groups["empty"].worst[0]
    assert shown.origin == "test.jsonl:7"
    assert (shown.true_label, shown.predicted, shown.answer) == ("5", None, "")
    assert shown.base_answer == always_five(None)
    assert groups["false_alarm"].worst == ()


def test_the_confusion_matrix_has_a_column_for_unreadable_answers():
    report = run(adapter=ScriptedAnswerer(lambda q: "none" if q.reference.endswith("0") else q.reference))
    (matrix,) = report.confusions
    assert matrix.labels == ("0", "1", "2", "3", "4", "5")
    assert matrix.counts[0] == (0, 0, 0, 0, 0, 0, 2)
    assert matrix.counts[5] == (0, 0, 0, 0, 0, 2, 0)
    assert (matrix.by_label[5].support, matrix.by_label[5].f1) == (2, 1.0)
    assert (matrix.by_label[0].support, matrix.by_label[0].recall) == (2, 0.0)


def test_likelihoods_give_perplexity_and_their_absence_a_reason():
    given = ScriptedAnswerer(right, likelihoods=[Likelihood(1.0, 2)] * 8)
    report = run(ScriptedAnswerer(right, likelihoods=Unavailable("not here")), given)
    perplexity = report.figure("perplexity")
    assert perplexity is not None
    assert perplexity.base.value is None
    assert perplexity.base.note == "not here"
    assert perplexity.adapter.value == pytest.approx(1.6487, abs=1e-4)
    assert perplexity.difference is None


def test_where_perplexity_alone_is_wanted_nothing_is_asked():
    answerer = ScriptedAnswerer(right, likelihoods=[Likelihood(1.0, 2)] * 8)
    report = run(adapter=answerer, plan=EvaluationPlan(metrics=("perplexity",)))
    assert answerer.asked == []
    assert [figure.name for figure in report.figures] == ["perplexity"]
    assert (report.mistakes, report.lengths) == ((), None)


def test_scores_that_cannot_be_had_are_absent_and_never_made_up():
    auc = run(adapter=ScriptedAnswerer(right)).figure("auc")
    assert auc is not None
    assert auc.adapter.value is None
    assert "probability" in auc.adapter.note


def test_texts_are_judged_without_labels():
    examples = [chat("Capital of France?", "Paris"), chat("Capital of Germany?", "Berlin")]
    report = run(adapter=ScriptedAnswerer(lambda _: "Paris"), examples=examples, plan=EvaluationPlan())
    assert report.figure("exact_match").adapter.value == 0.5
    assert report.figure("accuracy") is None
    assert report.confusions == ()
    assert [group.kind for group in report.mistakes] == ["other_text"]


def test_plain_text_is_not_asked_but_counts_for_perplexity():
    examples = [Example(Origin("t", 1), text="Once upon a time"), EXAMPLES[0]]
    answerer = ScriptedAnswerer(right, likelihoods=[Likelihood(2.0, 2), Likelihood(2.0, 2)])
    report = run(adapter=answerer, examples=examples, plan=EvaluationPlan(label_pattern=PATTERN))
    assert len(answerer.asked) == 1
    assert report.figure("perplexity").adapter.num_cases == 2
    assert report.figure("exact_match").adapter.num_cases == 1
    assert any("ask nothing" in note for note in report.notes)
    only_text = run(adapter=ScriptedAnswerer(right), examples=examples[:1], plan=EvaluationPlan())
    assert [figure.name for figure in only_text.figures] == ["perplexity"]


def test_a_draw_of_examples_is_the_seeds_and_keeps_the_order():
    plan = EvaluationPlan(label_pattern=PATTERN, max_examples=4, seed=7)
    first, second = ScriptedAnswerer(right), ScriptedAnswerer(right)
    report = run(first, second, plan=plan)
    assert first.asked == second.asked
    lines = [int(question.shown.split()[1]) for question in first.asked]
    assert len(lines) == 4
    assert lines == sorted(lines)
    assert any("4 of 8 examples" in note for note in report.notes)


def test_labels_may_come_from_the_answers_of_the_data():
    examples = [chat("What?", f"Risk: {level}") for level in (1, 2)]
    report = run(
        adapter=ScriptedAnswerer(right), examples=examples, plan=EvaluationPlan(label_pattern=PATTERN)
    )
    assert report.figure("accuracy").adapter.value == 1.0


def test_an_adapter_that_changes_nothing_is_pointed_out():
    report = run(ScriptedAnswerer(right), ScriptedAnswerer(right))
    assert any("does it change anything" in note for note in report.notes)


def test_answers_that_were_cut_off_are_told_from_others():
    report = run(adapter=ScriptedAnswerer(lambda _: said("and so on and on", stop=False)))
    assert [group.kind for group in report.mistakes] == ["cut_off"]


def test_no_examples_are_refused():
    with pytest.raises(EvaluationError, match="no examples"):
        run(adapter=ScriptedAnswerer(right), examples=[])


@pytest.mark.parametrize(
    ("plan", "part"),
    [
        (EvaluationPlan(metrics=("accuracy",)), "'accuracy' needs labels"),
        (EvaluationPlan(metrics=("false_alarms",)), "--false-alarm LOW:HIGH"),
        (EvaluationPlan(metrics=("blue",)), "no metric 'blue'; there are accuracy"),
        (EvaluationPlan(false_alarm="0:1"), "the data have none"),
        (EvaluationPlan(labels=("a",), label_pattern=PATTERN), "no answer in them matches"),
    ],
)
def test_what_the_data_do_not_allow_is_refused_with_the_remedy(plan, part):
    examples = [chat("Capital of France?", "Paris")]
    with pytest.raises(EvaluationError) as caught:
        run(adapter=ScriptedAnswerer(right), examples=examples, plan=plan)
    assert part in str(caught.value)


def test_a_pattern_that_misses_the_datas_own_labels_is_refused():
    plan = EvaluationPlan(label_pattern=r"Level: (\d)")
    with pytest.raises(EvaluationError, match=r"test\.jsonl:1: the label is '0'.*finds none"):
        run(adapter=ScriptedAnswerer(right), plan=plan)


def test_labels_beside_longer_answers_are_left_alone_until_a_pattern_is_given():
    report = run(adapter=ScriptedAnswerer(right), plan=EvaluationPlan())
    assert report.figure("accuracy") is None
    assert any("labels are not judged" in note for note in report.notes)


def test_single_answers_of_the_data_that_contradict_their_label_are_named():
    odd = chat("What?", "Risk: 3", label="2", line=99)
    report = run(adapter=ScriptedAnswerer(right), examples=[*EXAMPLES, odd])
    assert any("1 of 9 answers" in note and "test.jsonl:99" in note for note in report.notes)
