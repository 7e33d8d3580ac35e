from __future__ import annotations

import pytest

from adapters.evaluation.labels import false_alarm_rule
from adapters.evaluation.metrics.metric import Judging
from adapters.evaluation.mistakes import MISTAKES, mistake_of, severity
from tests.adapters.evaluation.conftest import RULE, case

JUDGING = Judging(RULE, false_alarm_rule("0-1:4-5", RULE))
REFERENCE = "Reasons: night hours, new payee. Risk: {}"


@pytest.mark.parametrize(
    ("true", "text", "stop", "kind"),
    [
        ("2", "Reasons: night hours, new payee. Risk: 2", True, None),
        ("2", "reasons:  Night hours, new payee.  risk: 2 Risk: 2", True, "wrong_reason"),
        ("2", "Reasons: new payee, night hours. Risk: 2", True, None),
        ("2", "Reasons: large amount. Risk: 2", True, "wrong_reason"),
        ("2", " \n", True, "empty"),
        ("0", "Reasons: night hours. Risk: 5", True, "false_alarm"),
        ("5", "Reasons: night hours. Risk: 1", True, "missed"),
        ("2", "Risk: 3", True, "off_by_one"),
        ("2", "Risk: 5", True, "far_off"),
        ("2", "这个付款没有任何风险因素", True, "language_switch"),
        ("2", "The payment is fine and so is", False, "cut_off"),
        ("2", "The payment is fine.", True, "unreadable"),
    ],
)
def test_each_answer_has_the_first_kind_of_mistake_that_fits(true, text, stop, kind):
    assert mistake_of(case(true, text, reference=REFERENCE.format(true), stop=stop), JUDGING) == kind


def test_without_labels_an_answer_is_right_or_another_text():
    judging = Judging()
    right = case(None, "Paris.", reference="paris", rule=None)
    wrong = case(None, "Berlin.", reference="paris", rule=None)
    assert (mistake_of(right, judging), mistake_of(wrong, judging)) == (None, "other_text")


def test_chinese_answered_in_english_is_another_language():
    answer = case("2", "There is no reason here at all", reference="理由：深夜、新收款人。风险：2")
    assert mistake_of(answer, JUDGING) == "language_switch"


def test_the_further_off_the_worse():
    near, far = case("1", "Risk: 2"), case("1", "Risk: 3")
    assert severity(far, JUDGING) > severity(near, JUDGING)


def test_every_kind_is_explained_once():
    names = [kind.name for kind in MISTAKES]
    assert len(set(names)) == len(names)
    assert all(kind.title and kind.explanation for kind in MISTAKES)
