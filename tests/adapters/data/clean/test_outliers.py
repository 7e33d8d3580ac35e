"""Outliers by TF-IDF."""

from __future__ import annotations

import random

import pytest

from adapters.data.clean.outliers import flag_outliers, outlier_terms
from adapters.data.example import Example, Origin
from adapters.errors import DataError

_ODD = {
    "The mitochondria is the powerhouse of the cell, says my biology teacher",
    "asdf qwer zxcv uiop hjkl",
    "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。",
}


def _example(text: str) -> Example:
    return Example(Origin("data.jsonl", 1), prompt=text, completion="1")


def _english(count: int) -> list[Example]:
    r = random.Random(1)
    return [
        _example(
            f"{r.choice(['Transfer', 'Payment'])} of {r.randrange(9_000)} EUR "
            f"to {r.choice(['Anna', 'Bob', 'Carl'])} "
            f"at {r.randrange(24)}:{r.randrange(60):02} from {r.choice(['Berlin', 'Paris', 'Lagos'])}"
        )
        for _ in range(count)
    ]


def _chinese(count: int) -> list[Example]:
    r = random.Random(2)
    return [
        _example(
            f"{r.choice(['张三', '李四', '王五'])}于{r.randrange(24)}点向{r.choice(['新收款人', '老客户', '房东'])}"
            f"转账{r.randrange(9_000)}元，地点{r.choice(['北京', '上海', '拉各斯'])}"
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    "usual", [_english(300), _chinese(300), _english(200) + _chinese(200)], ids=["en", "zh", "both"]
)
def test_texts_about_something_else_are_flagged_and_kept(usual: list[Example]) -> None:
    examples = usual[:70] + [_example(text) for text in sorted(_ODD)] + usual[70:]
    result = flag_outliers(examples)
    assert result.kept == tuple(examples) and not result.removed
    assert {finding.example.prompt for finding in result.flagged} == _ODD
    assert result.flagged[0].reason.startswith("outlier: distance 0.9")
    assert result.counts == (("outliers", 3),)


def test_nothing_stands_out_where_all_are_alike() -> None:
    assert flag_outliers(_english(300)).flagged == ()
    assert flag_outliers([_example("always the same note")] * 60).flagged == ()
    assert flag_outliers([_example("") for _ in range(60)]).flagged == ()


def test_nothing_can_be_said_of_texts_that_share_no_word() -> None:
    examples = [Example(Origin("f", n), text=f"only{n} here{n}") for n in range(60)]
    assert flag_outliers(examples).flagged == ()


def test_fewer_than_fifty_are_skipped_with_a_note() -> None:
    result = flag_outliers([*_english(48), _example("asdf qwer")])
    assert result.flagged == ()
    assert result.counts == (("skipped: fewer than 50 examples", 1),)


def test_the_quantile_bounds_how_many_are_flagged() -> None:
    examples = _english(190) + [_example(f"zz{n} yy{n} xx{n}") for n in range(10)]
    assert len(flag_outliers(examples, quantile=0.95, deviations=3).flagged) == 10
    assert len(flag_outliers(examples, quantile=0.999, deviations=3).flagged) <= 1


@pytest.mark.parametrize("options", [{"quantile": 1.0}, {"quantile": 0.0}, {"deviations": -1.0}])
def test_limits_that_mean_nothing_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(DataError, match="such as"):
        flag_outliers([], **options)


def test_terms_are_words_and_pairs_of_characters() -> None:
    assert outlier_terms("Pay 张三丰!") == ["pay", "张", "三", "丰", "张三", "三丰"]
