from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from adapters.data.example import Example, Origin
from adapters.data.split import SplitExamples, split_examples

shares = st.sampled_from([0.0, 0.01, 0.1, 0.25, 0.49])
rows = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from([None, "a", "b", "c"]), st.sampled_from(["x", "y"])),
    max_size=60,
)


def examples_of(drawn) -> list[Example]:
    return [
        Example(Origin("a", line), text=f"text {number}", label=label, task=task)
        for line, (number, label, task) in enumerate(drawn, start=1)
    ]


def many(number: int, labels: int = 4) -> list[Example]:
    return [Example(Origin("a", n + 1), text=f"text {n}", label=str(n % labels)) for n in range(number)]


def split(examples, **changes) -> SplitExamples:
    given = {"validation_share": 0.1, "test_share": 0.1, "seed": 0} | changes
    return split_examples(examples, **given)


@given(rows, shares, shares, st.booleans(), st.data())
def test_every_example_is_in_one_part_in_its_order_and_twins_are_together(
    drawn, validation, test, stratify, data
):
    examples = examples_of(drawn)
    index = st.integers(0, max(0, len(examples) - 1))
    twins = data.draw(st.lists(st.tuples(index, index), max_size=5)) if examples else []
    parts = split(examples, validation_share=validation, test_share=test, stratify=stratify, twins=twins)
    where: dict[int, str] = {}
    for name in ("train", "validation", "test"):
        part = getattr(parts, name)
        assert list(part) == sorted(part, key=lambda example: example.origin.line)
        for example in part:
            assert where.setdefault(example.origin.line, name) == name
    assert sorted(where) == list(range(1, len(examples) + 1))
    for left, right in twins:
        assert where[left + 1] == where[right + 1]
    by_text: dict[str, set[str]] = {}
    for line, example in enumerate(examples, start=1):
        by_text.setdefault(example.answer, set()).add(where[line])
    assert all(len(names) == 1 for names in by_text.values())
    if examples:
        assert parts.train
    assert not (validation == 0 and parts.validation)
    assert not (test == 0 and parts.test)


@given(st.integers(2, 80), shares, shares, st.integers(0, 5))
def test_without_twins_the_parts_have_the_size_asked_for(number, validation, test, seed):
    parts = split(many(number), validation_share=validation, test_share=test, seed=seed)
    wanted_test = max(1, round(number * test)) if test else 0
    wanted_test = min(wanted_test, number - 1)
    assert len(parts.test) == wanted_test
    wanted = max(1, round(number * validation)) if validation else 0
    assert len(parts.validation) == max(0, min(wanted, number - wanted_test - 1))


@given(st.integers(0, 5))
def test_the_place_in_the_file_does_not_matter(seed):
    examples = many(50)
    shuffled = random.Random(seed).sample(examples, len(examples))
    first, second = split(examples, seed=seed), split(shuffled, seed=seed)
    assert set(first.test) == set(second.test)
    assert set(first.validation) == set(second.validation)


def test_another_seed_gives_another_split():
    assert split(many(50), seed=1) != split(many(50), seed=2)
    assert split(many(50), seed=1) == split(many(50), seed=1)


def test_labels_are_held_out_in_their_shares():
    examples = [
        *many(90, labels=1),
        *(Example(Origin("b", n), text=f"rare {n}", label="9") for n in range(10)),
    ]
    parts = split(examples, validation_share=0.2, test_share=0.1)
    assert Counter(example.label for example in parts.validation) == {"0": 18, "9": 2}
    assert Counter(example.label for example in parts.test) == {"0": 9, "9": 1}


def test_a_label_that_occurs_once_stays_in_training():
    examples = [*many(20, labels=2), Example(Origin("b", 1), text="only", label="9")]
    for seed in range(20):
        parts = split(examples, validation_share=0.4, test_share=0.4, seed=seed)
        assert "9" in {example.label for example in parts.train}


def test_examples_with_a_label_of_their_own_each_are_held_out_all_the_same():
    assert len(split(many(40, labels=40)).validation) == 4


def test_one_example_is_for_training():
    assert len(split(many(1)).train) == 1
