"""Metrics of texts against values computed by hand and against sacrebleu."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU

from adapters.evaluation.answer import Likelihood
from adapters.evaluation.interval import value_of
from adapters.evaluation.metrics.metric import Judging
from adapters.evaluation.metrics.registry import METRICS
from adapters.evaluation.metrics.rouge import rouge_l, rouge_n
from tests.adapters.evaluation.conftest import case


def measured(name, cases):
    """The one figure of a metric that needs no labels, as (figure, its statistic)."""
    (figure,) = METRICS[name].measure(cases, Judging())
    assert figure.statistic is not None
    assert figure.value is not None or name == "perplexity"
    return figure, figure.statistic


def text_case(text, reference, **given_):
    return case(None, text, reference=reference, rule=None, **given_)


def test_exact_match_is_strict_and_forgiving():
    cases = [text_case("Paris", "Paris"), text_case(" paris. ", "Paris"), text_case("Berlin", "Paris")]
    loose, strict = METRICS["exact_match"].measure(cases, Judging())
    assert (loose.hits, strict.hits, loose.num_cases) == (2, 1, 3)


def test_rouge_of_words_by_hand():
    # answer: the cat sat on the mat (6), reference: the cat lay on a mat (6)
    answer, reference = "The cat sat on the mat.", "the cat lay on a mat"
    # common words: the, cat, on, mat -> 4; pairs: "the cat" -> 1 of 5 and 5; longest: the cat on mat
    assert rouge_n(answer, reference, 1) == pytest.approx(2 * 4 / 12)
    assert rouge_n(answer, reference, 2) == pytest.approx(2 * 1 / 10)
    assert rouge_l(answer, reference) == pytest.approx(2 * 4 / 12)


def test_rouge_counts_a_repeated_word_as_often_as_the_reference_has_it():
    assert rouge_n("the the the", "the cat", 1) == pytest.approx(2 * 1 / 5)


def test_rouge_l_minds_the_order_and_rouge_1_does_not():
    assert rouge_n("b a", "a b", 1) == 1.0
    assert rouge_l("b a", "a b") == pytest.approx(2 * 1 / 4)


def test_rouge_of_chinese_counts_characters():
    # 深夜新收款人 against 深夜大额: common 深 夜; pairs 深夜; 6 and 4 characters
    assert rouge_n("深夜、新收款人", "深夜、大额", 1) == pytest.approx(2 * 2 / 10)
    assert rouge_n("深夜、新收款人", "深夜、大额", 2) == pytest.approx(2 * 1 / 8)
    assert rouge_l("深夜、新收款人", "深夜、大额") == pytest.approx(2 * 2 / 10)


@pytest.mark.parametrize(("answer", "reference"), [("", "a"), ("a", ""), ("...", "a")])
def test_rouge_of_nothing_is_nothing(answer, reference):
    assert rouge_n(answer, reference, 1) == rouge_l(answer, reference) == 0.0


@given(st.text(max_size=40), st.text(max_size=40))
def test_rouge_is_symmetric_and_between_0_and_1(left, right):
    for value, mirrored in (
        (rouge_n(left, right, 2), rouge_n(right, left, 2)),
        (rouge_l(left, right), rouge_l(right, left)),
    ):
        assert value == mirrored
        assert 0 <= value <= 1
    assert rouge_l(left, right) <= rouge_n(left, right, 1) + 1e-12


def test_bleu_is_sacrebleus_and_names_its_signature():
    cases = [
        text_case("the cat sat on the mat today", "the cat sat on a mat today"),
        text_case("a dog", "a dog barks at night"),
    ]
    bleu, statistic = measured("bleu", cases)
    expected = (
        BLEU(tokenize="13a").corpus_score([c.text for c in cases], [[c.reference for c in cases]]).score
    )
    assert bleu.value == pytest.approx(expected)
    assert value_of(statistic, 2) == pytest.approx(expected)
    assert "tok:13a" in bleu.note


def test_bleu_takes_its_chinese_tokenizer_where_a_reference_is_chinese():
    # Without it each sentence would be one word, and one changed character a BLEU of nothing.
    bleu, _ = measured("bleu", [text_case("理由是深夜新收款人", "理由是深夜旧收款人")])
    assert "tok:zh" in bleu.note
    assert (bleu.value or 0) > 40


def test_bleu_of_a_draw_is_the_bleu_of_the_drawn_sentences():
    texts = [
        ("a b c d e", "a b c d f"),
        ("x y z w", "x y z w"),
        ("no words here at all", "quite another one"),
    ]
    _, statistic = measured("bleu", [text_case(*pair) for pair in texts])
    drawn = [texts[0], texts[0], texts[2]]
    expected = BLEU(tokenize="13a").corpus_score([a for a, _ in drawn], [[r for _, r in drawn]]).score
    assert statistic(np.array([[2.0, 0.0, 1.0]]))[0] == pytest.approx(expected)


def test_perplexity_weighs_by_tokens():
    cases = [
        text_case("", "a", likelihood=Likelihood(nats=3.0, num_tokens=1)),
        text_case("", "b", likelihood=Likelihood(nats=3.0, num_tokens=5)),
        text_case("", "c", likelihood=Likelihood(nats=0.0, num_tokens=0)),
    ]
    perplexity, statistic = measured("perplexity", cases)
    assert value_of(statistic, 3) == pytest.approx(math.exp(6 / 6))
    assert perplexity.num_cases == 2
    assert "6 learned tokens of 2 of 3 examples" in perplexity.note


def test_perplexity_that_cannot_be_had_says_why():
    (perplexity,) = METRICS["perplexity"].measure(
        [text_case("", "a")], Judging(likelihood_reason="the gateway gives none")
    )
    assert (perplexity.statistic, perplexity.note) == (None, "the gateway gives none")


def test_metrics_are_found_by_the_name_they_have():
    assert all(name == metric.name for name, metric in METRICS.items())
    assert len(METRICS) == 9
