from __future__ import annotations

from adapters.evaluation.metrics.words import cjk_share, has_cjk, normalised, words_of


def test_words_are_lower_case_and_chinese_counts_by_character():
    assert words_of("Night hours, EUR 62,000!") == ["night", "hours", "eur", "62", "000"]
    assert words_of("理由：深夜、new payee。") == ["理", "由", "深", "夜", "new", "payee"]
    assert words_of("naïve Straße カナ 한국") == ["naïve", "straße", "カ", "ナ", "한", "국"]


def test_normalisation_forgets_case_width_blanks_and_the_ends():
    assert normalised("  Paris。") == normalised("ＰＡＲＩＳ") == "paris"
    assert normalised("a\n b") == "a b"
    assert normalised("risk: 2") != normalised("risk: 3")


def test_the_share_of_chinese_is_of_the_letters():
    assert cjk_share("ab深夜 123") == 0.5
    assert cjk_share("123 !") is None
    assert has_cjk("x 深")
    assert not has_cjk("Straße")
