"""Metrics of labels against values computed by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score  # type: ignore[import-untyped]

from adapters.evaluation.interval import value_of
from adapters.evaluation.labels import LabelRule, false_alarm_rule
from adapters.evaluation.metrics.metric import Judging
from adapters.evaluation.metrics.registry import METRICS
from tests.adapters.evaluation.conftest import RULE, case

JUDGING = Judging(RULE, false_alarm_rule("0-1:4-5", RULE), scores_reason="no scores")
# true label, answer: two right, one unreadable, one false alarm, one miss
CASES = [
    case("0", "Risk: 0"),
    case("1", "Risk: 5"),
    case("2", "I cannot say"),
    case("3", "Risk: 3"),
    case("5", "Risk: 0"),
]


def measure(name, cases=CASES, judging=JUDGING):
    """Figures of a metric by name, as (value, number of cases, note)."""
    found = METRICS[name].measure(cases, judging)
    return {
        one.name: (
            None if one.statistic is None else value_of(one.statistic, len(cases)),
            one.num_cases,
            one.note,
        )
        for one in found
    }


def test_accuracy_counts_unreadable_answers_as_wrong_and_says_how_many():
    found = measure("accuracy")
    assert found["accuracy"][:2] == (0.4, 5)
    assert found["unreadable"][:2] == (0.2, 5)


def test_examples_without_a_label_do_not_count_for_accuracy():
    unlabelled = case(None, "Risk: 0", reference="anything")
    assert measure("accuracy", [*CASES, unlabelled])["accuracy"][:2] == (0.4, 5)


def test_macro_f1_is_the_mean_over_the_labels_of_the_data():
    # 0: tp 1, said 2, true 1 -> 2/3; 1: 0; 2: 0; 3: 1; 5: 0; 4 does not occur
    value, number, _ = measure("macro_f1")["macro_f1"]
    assert value == pytest.approx((2 / 3 + 1) / 5)
    assert number == 5
    assert METRICS["macro_f1"].measure(CASES, JUDGING)[0].value == pytest.approx(value)


def test_mean_absolute_error_is_over_readable_answers():
    value, number, note = measure("mean_absolute_error")["mean_absolute_error"]
    assert value == pytest.approx((0 + 4 + 0 + 5) / 4)
    assert number == 4
    assert "4 of 5" in note


def test_false_alarms_are_given_over_all_and_over_the_truly_low():
    found = measure("false_alarms")
    assert found["false_alarms"][:2] == (0.2, 5)
    assert found["false_alarms_of_low"][:2] == (0.5, 2)
    assert found["misses"][:2] == (0.2, 5)
    assert found["misses_of_high"][:2] == (1.0, 1)


def test_a_share_of_no_examples_is_absent_and_says_so():
    low_only = [case("0", "Risk: 0")]
    assert measure("false_alarms", low_only)["misses_of_high"] == (None, 0, "there is no such example")


def test_auc_is_one_for_perfect_and_half_for_blind_scores():
    rule = LabelRule(None, ("a", "b"), ordinal=False)

    def cases(scores):
        return [
            case(true, true, reference=true, rule=rule, scores=given)
            for true, given in zip("aabb", scores, strict=True)
        ]

    perfect = [{"a": 0.9, "b": 0.1}, {"a": 0.8, "b": 0.2}, {"a": 0.3, "b": 0.7}, {"a": 0.1, "b": 0.9}]
    blind = [{"a": 0.5, "b": 0.5}] * 4
    judging = Judging(rule)
    assert measure("auc", cases(perfect), judging)["auc"][0] == 1.0
    assert measure("auc", cases(blind), judging)["auc"][0] == 0.5


def test_auc_says_over_how_many_answers_and_how_much_was_not_seen():
    cases = [
        case("0", "Risk: 0", scores={"0": 0.9, "1": 0.05}, unseen=0.01),
        case("1", "Risk: 1", scores={"0": 0.1, "1": 0.8}),
        case("1", "none"),
    ]
    value, number, note = measure("auc", cases)["auc"]
    assert (value, number) == (1.0, 2)
    assert "over 2 of 3 answers" in note
    assert "0.01" in note


def test_auc_without_scores_is_absent_with_the_reason():
    assert measure("auc")["auc"] == (None, 0, "no scores")
    one_class = [case("0", "Risk: 0", scores={"0": 1.0})] * 3
    assert measure("auc", one_class)["auc"][0] is None


labels = st.sampled_from(RULE.labels)
answers = st.lists(st.tuples(labels, st.one_of(st.none(), labels)), min_size=2, max_size=40)


@given(answers, st.randoms(use_true_random=False))
def test_statistics_on_any_draw_are_those_of_scikit_learn(pairs, random):
    cases = [
        case(
            true,
            "none" if said is None else f"Risk: {said}",
            scores=None if said is None else {label: random.random() for label in RULE.labels},
        )
        for true, said in pairs
    ]
    weights = np.array([[float(random.randint(0, 3)) for _ in cases]])
    drawn = [i for i, count in enumerate(weights[0]) for _ in range(int(count))]
    f1 = METRICS["macro_f1"].measure(cases, JUDGING)[0]
    present = [label for label in RULE.labels if any(one.true_label == label for one in cases)]
    if drawn:
        expected = f1_score(
            [cases[i].true_label for i in drawn],
            [cases[i].predicted or "" for i in drawn],
            labels=present,
            average="macro",
            zero_division=0,
        )
        assert f1.statistic is not None
        assert f1.statistic(weights)[0] == pytest.approx(expected)
    auc = METRICS["auc"].measure(cases, JUDGING)[0]
    scores = [one.answer.label_scores if one.answer is not None else None for one in cases]
    scored = [(one.true_label, given) for one, given in zip(cases, scores, strict=True) if given is not None]
    each = []
    for label in RULE.labels:
        own = [true == label for true, _ in scored]
        if any(own) and not all(own):
            each.append(roc_auc_score(own, [given[label] for _, given in scored]))
    if each:
        assert auc.value == pytest.approx(np.mean(each))
        assert auc.statistic is not None
        assert auc.statistic(np.ones((1, len(cases))))[0] == pytest.approx(np.mean(each))
    else:
        assert auc.statistic is None
