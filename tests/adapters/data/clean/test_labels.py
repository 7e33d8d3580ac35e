"""The label map."""

from __future__ import annotations

import pytest

from adapters.data.clean.labels import normalise_labels


def test_labels_map_as_written_then_regardless_of_case(ask) -> None:
    labels = ["Hi", "hi ", "LOW", "low", "0", "odd"]
    examples = [ask("note", "text", label=label) for label in labels]
    result = normalise_labels(examples, mapping={"Hi": "5", "hi": "4", "low": "0"})
    assert [example.label for example in result.kept] == ["5", "hi ", "0", "0", "0", "odd"]
    assert [finding.reason for finding in result.flagged] == [
        "unknown label 'hi ': not in the label map",
        "unknown label 'odd': not in the label map",
    ]
    assert dict(result.counts) == {
        "before 0": 1, "before Hi": 1, "before LOW": 1, "before hi ": 1, "before low": 1, "before odd": 1,
        "after 0": 3, "after 5": 1, "after hi ": 1, "after odd": 1, "unknown hi ": 1, "unknown odd": 1,
    }  # fmt: skip
    assert result.changed == 3


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("High", "5"),
        (" high\n", " 5\n"),
        ("Level: high. The amount is high.", "Level: 5. The amount is high."),
        ('{"label": "high", "why": "high amount"}', '{"label": "5", "why": "high amount"}'),
        ("**Risk level:** high", "**Risk level:** 5"),
        ("风险等级：high，金额较大", "风险等级：5，金额较大"),
        ("The label is high", "The label is 5"),
    ],
)
def test_an_answer_that_names_its_label_changes_with_it(ask, answer: str, expected: str) -> None:
    result = normalise_labels([ask("note", answer, label="high")], mapping={"high": "5"})
    assert result.kept[0].answer == expected
    assert result.kept[0].label == "5"
    assert not result.flagged


def test_chinese_labels_map_and_rename_in_the_answer(ask) -> None:
    result = normalise_labels([ask("转账", "等级为高", label="高")], mapping={"高": "5"})
    assert (result.kept[0].answer, result.kept[0].label) == ("等级为5", "5")


def test_free_wording_is_left_and_flagged(ask) -> None:
    result = normalise_labels([ask("note", "This looks high to me", label="high")], mapping={"high": "5"})
    assert result.kept[0].answer == "This looks high to me"
    assert result.flagged[0].reason == "label 'high' became '5'; the answer's wording was left"


def test_the_map_is_not_applied_to_its_own_result(ask) -> None:
    result = normalise_labels(
        [ask("n", "a", label="a"), ask("n", "b", label="b")], mapping={"a": "b", "b": "c"}
    )
    assert [example.label for example in result.kept] == ["b", "c"]


def test_case_is_folded_onto_the_targets_too(ask) -> None:
    result = normalise_labels([ask("n", "x", label="HIGH")], mapping={"h": "high"})
    assert result.kept[0].label == "high"


def test_without_a_map_nothing_changes(ask, plain) -> None:
    examples = [ask("n", "x", label="High"), plain("text")]
    result = normalise_labels(examples, mapping={})
    assert result.kept == tuple(examples)
    assert not result.flagged and result.changed == 0
    assert dict(result.counts) == {"before High": 1, "after High": 1}
