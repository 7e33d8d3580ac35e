from __future__ import annotations

import pytest

from adapters.errors import EvaluationError
from adapters.evaluation.labels import FoundLabel, LabelRule, false_alarm_rule, label_rule
from tests.adapters.evaluation.conftest import PATTERN, RULE


def test_the_last_match_of_the_pattern_is_the_label():
    assert RULE.find("Risk: 1, no: Risk: 4") == FoundLabel("4", 19)
    assert RULE.find("理由：深夜。风险：2") == FoundLabel("2", 9)


@pytest.mark.parametrize("text", ["", "no label", "Risk: x", "Risk: 9"])
def test_no_match_and_a_label_that_is_none_are_unreadable(text):
    assert RULE.find(text) is None


def test_without_a_pattern_the_whole_answer_is_the_label():
    rule = LabelRule(None, ("no", "yes"), ordinal=False)
    assert rule.find("  yes\n") == FoundLabel("yes", 2)
    assert rule.find("yes, it is") is None


def test_whole_numbers_are_ordered_by_value_and_words_are_not_ordinal():
    assert label_rule({"10", "9", "-1"}, pattern=None, labels=()).labels == ("-1", "9", "10")
    words = label_rule({"high", "low"}, pattern=None, labels=())
    assert (words.labels, words.ordinal) == (("high", "low"), False)


def test_an_order_that_is_given_makes_words_ordinal():
    rule = label_rule({"low", "high"}, pattern=None, labels=("low", "medium", "high"))
    assert rule.ordinal
    assert rule.distance("low", "high") == 2
    assert label_rule({"1", "5"}, pattern=None, labels=()).distance("1", "5") == 4


def test_labels_outside_the_given_order_are_refused_by_name():
    with pytest.raises(EvaluationError, match=r"labels medium, which --labels \(low, high\) lacks"):
        label_rule({"low", "medium"}, pattern=None, labels=("low", "high"))


def test_a_column_of_free_text_is_not_taken_for_labels():
    with pytest.raises(EvaluationError, match="300 different labels"):
        label_rule({f"text {i}" for i in range(300)}, pattern=PATTERN, labels=())


def test_false_alarms_are_ranges_or_lists_of_labels():
    rule = false_alarm_rule("0-1:4,5", RULE)
    assert rule.low == {"0", "1"}
    assert rule.high == {"4", "5"}
    assert false_alarm_rule("0-1:7-9,5", RULE).high == {"5"}  # not every number need occur
    dashed = LabelRule(None, ("a-b", "c", "d"), ordinal=True)
    assert false_alarm_rule("a-b:c-d", dashed).high == {"c", "d"}


@pytest.mark.parametrize(
    ("text", "part"),
    [("0-1", "LOW:HIGH"), ("0:7", "'7'"), ("0:a-b", "'a-b'"), ("0-3:3-5", "on both sides"), (":5", "''")],
)
def test_a_false_alarm_rule_that_cannot_be_is_refused(text, part):
    with pytest.raises(EvaluationError, match=part):
        false_alarm_rule(text, RULE)
