"""Exact and near duplicates, their groups, and leaks between splits."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.data.clean.duplicates import (
    drop_exact_duplicates,
    drop_near_duplicates,
    near_duplicate_groups,
    near_duplicates_between,
)
from adapters.data.clean.keys import normalised
from adapters.data.clean.shingles import shingle_sets
from adapters.data.clean.sketches import band_shape, max_distance_bits
from adapters.data.example import Example, Origin
from adapters.errors import DataError

SENTENCE = (
    "The customer asked the bank to move the rest of her savings to the new account of her daughter in Porto "
    "before the end of the week, because the old one is closed"
)
CHINESE = (
    "客户要求银行在本周结束之前把剩余的存款全部转到女儿在上海新开的账户里，"
    "因为原来的账户已经被关闭，不能再使用了。"
)


# ---- exact


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Pay  12.50 EUR, now!", "pay 12.50 eur now"),
        ("Is it “late”?", 'is it "late"'),
        ("你好，世界。", "你好 世界"),
        ("ＡＢＣ１２３", "abc123"),
        ("今天 3 点", "今天3点"),
        ("Wait ... what", "wait what"),
    ],
)
def test_case_spacing_width_and_sentence_marks_make_no_difference(left: str, right: str) -> None:
    assert normalised(left) == normalised(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("1.5", "15"), ("-5", "5"), ("x != 5", "x = 5"), ("a<b", "a>b"), ("f(x)", "f x"), ("50 %", "50"),
        ("?", "!"), ("1,000", "1.000"), ("甲乙", "乙甲"), ("$5", "€5"), ("a.b", "a b"),
    ],
)  # fmt: skip
def test_what_can_change_the_meaning_makes_a_difference(left: str, right: str) -> None:
    assert normalised(left) != normalised(right)


@given(st.text(max_size=30))
def test_normalising_twice_is_normalising_once(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)


def test_the_first_of_exact_duplicates_is_kept(ask) -> None:
    examples = [
        ask("What is due?", "A lot."),
        ask("Other"),
        ask("what  is due", "a lot"),
        ask("What is due?", "A lot."),
    ]
    result = drop_exact_duplicates(examples)
    assert result.kept == tuple(examples[:2])
    assert [(finding.example, finding.twin) for finding in result.removed] == [
        (examples[2], examples[0]),
        (examples[3], examples[0]),
    ]
    assert dict(result.counts) == {"exact duplicates": 2}


def test_other_system_message_role_or_label_is_no_exact_duplicate(ask) -> None:
    examples = [
        ask("a"),
        ask("a", system="be brief"),
        ask("a", label="1"),
        Example(Origin("f", 1), prompt="a", completion="yes"),
    ]
    assert drop_exact_duplicates(examples).kept == tuple(examples)


def test_conflicting_answers_to_the_same_prompt_are_flagged_and_kept(ask, plain) -> None:
    examples = [
        ask("Is it safe?", "0"),
        ask("is it safe", "5"),
        ask("Is it safe?", "0."),
        ask("Else?", "5"),
        plain("x"),
    ]
    result = drop_exact_duplicates(examples)
    assert result.kept == (examples[0], examples[1], examples[3], examples[4])
    assert [(finding.example, finding.twin, finding.reason) for finding in result.flagged] == [
        (examples[1], examples[0], "conflicting answers to the same prompt")
    ]


# ---- near


@pytest.mark.parametrize("text", [SENTENCE, CHINESE])
@pytest.mark.parametrize("method", ["minhash", "simhash"])
@pytest.mark.parametrize("max_all_pairs", [0, 2_000])
def test_a_changed_ending_is_a_near_duplicate(ask, plain, text, method, max_all_pairs) -> None:
    for make in (ask, plain):
        examples = [
            make(text),
            make("Something else altogether, with no word of it, 完全不同的内容"),
            make(text[:-1] + " x"),
        ]
        result = drop_near_duplicates(examples, method=method, threshold=0.8, max_all_pairs=max_all_pairs)
        assert result.kept == tuple(examples[:2])
        assert result.removed[0].twin == examples[0]
        assert result.removed[0].reason.startswith("near duplicate, similarity 0.9")


def test_the_threshold_is_the_jaccard_similarity_of_the_shingles(ask) -> None:
    # 10 and 11 shingles of three words, 10 of them shared.
    words = [f"word{number}" for number in range(12)]
    examples = [ask(" ".join(words)), ask(" ".join([*words, "thirteen"]))]
    assert len(drop_near_duplicates(examples, threshold=10 / 11).kept) == 1
    assert len(drop_near_duplicates(examples, threshold=10 / 11 + 0.001).kept) == 2


def test_notes_that_differ_in_a_figure_and_their_answer_both_stay(ask) -> None:
    note = SENTENCE + ", amount {} EUR"
    examples = [
        ask(note.format(900), "1"),
        ask(note.format(9000), "4"),
        ask(note.format(9000), "4", label="x"),
    ]
    assert drop_near_duplicates(examples, threshold=0.5).kept == tuple(examples)


def test_short_notes_under_one_long_instruction_are_told_apart(ask) -> None:
    instruction = "Read the note and " + SENTENCE + " and answer with the level from 0 to 5 alone. Note: "
    names = ["Anna", "Bob", "Carla", "Dmitri", "Eva", "Farid", "Gina", "Hugo", "Ines", "Jan", "Kim", "Lea"]
    examples = [ask(f"{instruction}{name} sends {7 * n} EUR", str(n % 2)) for n, name in enumerate(names)]
    assert drop_near_duplicates(examples, threshold=0.7).kept == tuple(examples)
    assert len(drop_near_duplicates([*examples, replace(examples[3])], threshold=0.7).removed) == 1


def test_examples_with_other_system_messages_are_not_compared(ask) -> None:
    examples = [ask(SENTENCE, system="Answer in French"), ask(SENTENCE + " x", system="Answer in German")]
    assert drop_near_duplicates(examples, threshold=0.5).kept == tuple(examples)


def test_a_chain_is_one_cluster_and_says_so(plain) -> None:
    words = [f"w{n}" for n in range(60)]
    links = [" ".join(words[start : start + 40]) for start in (0, 3, 6, 9)]
    examples = [plain(link) for link in links]
    result = drop_near_duplicates(examples, threshold=0.8)
    assert result.kept == (examples[0],)
    assert "through others that are at least 0.80 alike" in result.removed[-1].reason
    assert dict(result.counts) == {"near duplicates": 3, "clusters": 1}


@pytest.mark.parametrize("method", ["minhash", "simhash"])
@pytest.mark.parametrize(
    "examples",
    [[], [Example(Origin("f", 1), text="")] * 1, [Example(Origin("f", 1), prompt="?", completion="x")]],
)
def test_few_and_empty_examples_are_kept(method, examples) -> None:
    assert drop_near_duplicates(examples, method=method, threshold=0.9, max_all_pairs=0).kept == tuple(
        examples
    )
    assert near_duplicate_groups(examples, method=method) == list(range(len(examples)))
    assert near_duplicates_between(examples, [], method=method) == ()


@pytest.mark.parametrize("threshold", [0, -1, 1.01, float("nan")])
def test_a_threshold_that_means_nothing_is_refused(plain, threshold) -> None:
    with pytest.raises(DataError, match=r"above 0 and at most 1"):
        drop_near_duplicates([plain("a"), plain("b")], threshold=threshold)


def test_an_unknown_method_is_refused(plain) -> None:
    with pytest.raises(DataError, match="minhash or simhash"):
        drop_near_duplicates([plain("a")], method="md5", threshold=0.9)  # type: ignore[arg-type]


# ---- sketches


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0])
def test_bands_miss_a_pair_at_the_threshold_once_in_a_thousand(threshold: float) -> None:
    num_bands, num_rows = band_shape(threshold)
    assert num_bands * num_rows <= 128
    assert (1 - threshold**num_rows) ** num_bands <= 1e-3


@pytest.mark.parametrize(("threshold", "bits"), [(1.0, 0), (0.85, 8), (0.5, 17)])
def test_the_hamming_distance_follows_from_the_threshold(threshold: float, bits: int) -> None:
    assert max_distance_bits(threshold) == bits


def _varied(seed: int, count: int) -> list[Example]:
    """Texts of 60 words, every third a copy of the one before it with one word changed at the end."""
    chance = random.Random(seed)
    texts: list[list[str]] = []
    for index in range(count):
        words = [f"w{chance.randrange(5_000)}" for _ in range(60)]
        texts.append([*texts[-1][:-1], "changed"] if index % 3 == 2 else words)
    return [Example(Origin("f", index + 1), text=" ".join(words)) for index, words in enumerate(texts)]


def test_minhash_finds_what_comparing_all_pairs_finds() -> None:
    examples = _varied(1, 900)
    exact = drop_near_duplicates(examples, threshold=0.85)
    sketched = drop_near_duplicates(examples, threshold=0.85, max_all_pairs=0)
    assert len(exact.removed) == 300
    assert sketched == exact


def test_simhash_finds_no_pair_that_is_none_and_most_that_are() -> None:
    examples = _varied(2, 900)
    exact = {finding.example for finding in drop_near_duplicates(examples, threshold=0.85).removed}
    result = drop_near_duplicates(examples, method="simhash", threshold=0.85, max_all_pairs=0)
    found = {finding.example for finding in result.removed}
    assert found <= exact
    assert len(found) > 0.9 * len(exact)


def test_hundreds_of_fillings_of_one_text_are_one_cluster() -> None:
    words = SENTENCE.split() * 2
    examples = [
        Example(Origin("f", n), text=" ".join([*words[: n % 50], f"v{n}", *words[n % 50 :]]))
        for n in range(400)
    ]
    assert len(drop_near_duplicates(examples, threshold=0.6, max_all_pairs=0).kept) == 1


def test_shingles_are_three_words_or_five_characters() -> None:
    sets = shingle_sets(["a b c d", "一二三四五六", "a", "", "a b a b a b a b"])
    assert sets.sizes.tolist() == [2, 2, 1, 1, 2]
    assert len(set(sets.fingerprints().tolist())) == 5


# ---- algebra

_WORDS = st.sampled_from(["pay", "to", "anna", "900", "now", "付", "款", "给", "她"])
_PROMPTS = st.lists(_WORDS, max_size=9).map(" ".join)
_EXAMPLES = st.lists(st.tuples(_PROMPTS, st.sampled_from(["0", "5"]), st.booleans()), max_size=14).map(
    lambda rows: [
        Example(Origin("f", line), text=prompt)
        if is_text
        else Example(Origin("f", line), prompt=prompt or "?", completion=answer)
        for line, (prompt, answer, is_text) in enumerate(rows, 1)
    ]
)
_THRESHOLDS = st.sampled_from([0.2, 0.4, 0.5, 0.6, 0.75, 0.9, 1.0])


@settings(deadline=None)
@given(_EXAMPLES, _THRESHOLDS)
def test_nothing_is_lost_and_the_order_stays(examples: list[Example], threshold: float) -> None:
    for result in (drop_exact_duplicates(examples), drop_near_duplicates(examples, threshold=threshold)):
        removed = [finding.example for finding in result.removed]
        assert sorted([*result.kept, *removed], key=lambda example: example.origin.line) == examples
        assert [example for example in examples if example not in removed] == list(result.kept)
        assert all(finding.twin in result.kept for finding in result.removed)
        lines = [
            (finding.twin.origin.line, finding.example.origin.line)
            for finding in result.removed
            if finding.twin
        ]
        assert all(twin < line for twin, line in lines)


def _clusters(examples: list[Example], threshold: float, **options: object) -> set[frozenset[int]]:
    groups = near_duplicate_groups(examples, threshold=threshold, **options)  # type: ignore[arg-type]
    lines: dict[int, set[int]] = {}
    for example, group in zip(examples, groups, strict=True):
        lines.setdefault(group, set()).add(example.origin.line)
    return {frozenset(members) for members in lines.values()}


@settings(deadline=None)
@given(_EXAMPLES, _THRESHOLDS, st.randoms(use_true_random=False), st.sampled_from(["minhash", "simhash"]))
def test_clusters_do_not_depend_on_the_order(examples, threshold, chance, method) -> None:
    shuffled = examples[:]
    chance.shuffle(shuffled)
    for limit in (0, 2_000):
        options = {"method": method, "max_all_pairs": limit}
        assert _clusters(examples, threshold, **options) == _clusters(shuffled, threshold, **options)


@settings(deadline=None)
@given(_EXAMPLES, _THRESHOLDS, _THRESHOLDS)
def test_a_higher_threshold_removes_no_more(examples, one, other) -> None:
    low, high = sorted((one, other))
    strict = drop_near_duplicates(examples, threshold=high)
    loose = drop_near_duplicates(examples, threshold=low)
    assert set(loose.kept) <= set(strict.kept)


@settings(deadline=None)
@given(_EXAMPLES, _THRESHOLDS)
def test_what_was_kept_has_no_near_duplicates(examples, threshold) -> None:
    kept = drop_near_duplicates(examples, threshold=threshold).kept
    assert drop_near_duplicates(kept, threshold=threshold).kept == kept


@settings(deadline=None)
@given(_EXAMPLES, _THRESHOLDS, st.integers(0, 3))
def test_a_split_by_groups_has_no_leak(examples, threshold, salt) -> None:
    groups = near_duplicate_groups(examples, threshold=threshold)
    sides: tuple[list[Example], list[Example], list[Example]] = ([], [], [])
    for example, group in zip(examples, groups, strict=True):
        sides[(group * 7 + salt) % 3].append(example)
    for left, right in combinations(range(3), 2):
        context = sides[3 - left - right]
        assert near_duplicates_between(sides[left], sides[right], threshold=threshold, context=context) == ()


# ---- between splits


def test_leaks_name_the_most_similar_of_the_other_split(ask) -> None:
    left = [
        ask(SENTENCE + " a b c d"),
        ask(SENTENCE + " x"),
        ask("Is it safe?", "0"),
        ask("Unrelated words here", "0"),
    ]
    right = [ask(SENTENCE), ask("is it safe", "5"), ask("Is it safe", "0"), ask("Entirely new, 全新的", "0")]
    findings = near_duplicates_between(left, right, threshold=0.8)
    assert [(finding.example, finding.twin) for finding in findings] == [
        (right[0], left[1]),
        (right[1], left[2]),
        (right[2], left[2]),
    ]
    assert [finding.reason for finding in findings] == [
        "near duplicate, similarity 0.97",
        "same prompt, another answer",
        "duplicate",
    ]


@pytest.mark.parametrize("method", ["minhash", "simhash"])
def test_leaks_are_found_in_large_splits(method) -> None:
    examples = _varied(3, 600)
    left, right = examples[1::3], examples[2::3]  # each third is a copy of the one before it
    findings = near_duplicates_between(left, right, method=method, threshold=0.85, max_all_pairs=0)
    pairs = {(finding.twin.origin.line, finding.example.origin.line) for finding in findings if finding.twin}
    assert all(twin + 1 == line for twin, line in pairs)
    assert len(pairs) == 200 if method == "minhash" else len(pairs) > 180


def test_groups_are_numbered_in_order_of_appearance(ask) -> None:
    examples = [
        ask("Is it safe?", "0"),
        ask(SENTENCE),
        ask("is it safe", "5"),
        ask(SENTENCE + " x"),
        ask("New words"),
    ]
    assert near_duplicate_groups(examples, threshold=0.8) == [0, 1, 0, 1, 2]
