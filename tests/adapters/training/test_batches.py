"""Which examples every step sees."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.training.batches import StepBatches, evaluation_batches

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=60)


@given(lengths=LENGTHS, size=st.integers(1, 9), seed=st.integers(0, 9), similar=st.booleans())
def test_a_pass_sees_every_example_once(lengths: list[int], size: int, seed: int, similar: bool) -> None:
    passes = 2
    steps = -(-passes * len(lengths) // size)
    batches = StepBatches(lengths, total_steps=steps, batch_size=size, seed=seed, similar_lengths=similar)
    seen = list(chain.from_iterable(batches.steps()))
    assert sorted(seen[: len(lengths)]) == list(range(len(lengths))) or similar
    # Sorting by length looks ahead beyond a pass, and still brings every example equally often.
    if not similar:
        assert Counter(seen[: passes * len(lengths)]) == dict.fromkeys(range(len(lengths)), passes)


@given(
    lengths=LENGTHS,
    accumulation=st.integers(1, 3),
    processes=st.integers(1, 3),
    extra=st.integers(0, 7),
    seed=st.integers(0, 3),
)
def test_parts_and_processes_change_nothing_in_what_a_step_sees(
    lengths: list[int], accumulation: int, processes: int, extra: int, seed: int
) -> None:
    size = accumulation * processes + extra
    whole = StepBatches(lengths, total_steps=5, batch_size=size, seed=seed)
    shares = [
        list(
            StepBatches(
                lengths,
                total_steps=5,
                batch_size=size,
                accumulation_steps=accumulation,
                num_processes=processes,
                process_index=index,
                seed=seed,
            )
        )
        for index in range(processes)
    ]
    assert all(len(share) == 5 * accumulation for share in shares)
    for step, examples in enumerate(whole.steps()):
        own = [share[step * accumulation : (step + 1) * accumulation] for share in shares]
        assert all(part for parts in own for part in parts)
        together = chain.from_iterable(chain.from_iterable(own))
        assert sorted(together) == sorted(examples)


def test_parts_have_about_equally_many_tokens() -> None:
    batches = StepBatches([100, 90, 50, 40, 10, 5], total_steps=1, batch_size=6, accumulation_steps=2)
    lengths = [100, 90, 50, 40, 10, 5]
    parts = batches.parts(range(6))
    assert [sum(lengths[index] for index in part) for part in parts] == [150, 145]


def test_passes_differ_and_seeds_repeat() -> None:
    def order(seed: int) -> list[int]:
        return list(
            chain.from_iterable(StepBatches([1] * 50, total_steps=10, batch_size=10, seed=seed).steps())
        )

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1)[:50] != order(1)[50:]


def test_a_sampling_weight_makes_a_task_come_up_so_many_times_as_often() -> None:
    tasks = ["a"] * 60 + ["b"] * 30
    batches = StepBatches(
        [1] * 90,
        total_steps=90,
        batch_size=9,
        tasks=tasks,
        sampling_weights={"a": 1.0, "b": 4.0},
    )
    seen = Counter(tasks[index] for index in chain.from_iterable(batches.steps()))
    assert seen["b"] / seen["a"] == pytest.approx(4 * 30 / 60, rel=0.01)
    members = Counter(index for index in chain.from_iterable(batches.steps()) if tasks[index] == "b")
    assert max(members.values()) - min(members.values()) <= 1  # within a task all come up equally often


def test_too_few_examples_for_the_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="3 examples cannot be cut into 4 parts"):
        StepBatches([1] * 9, total_steps=1, batch_size=3, accumulation_steps=2, num_processes=2)


@given(lengths=LENGTHS, capacity=st.integers(1, 300), padded=st.booleans())
def test_an_evaluation_sees_every_example_once_within_its_capacity(
    lengths: list[int], capacity: int, padded: bool
) -> None:
    batches = evaluation_batches(lengths, capacity_tokens=capacity, padded=padded)
    assert sorted(chain.from_iterable(batches)) == list(range(len(lengths)))
    for batch in batches:
        sizes = [lengths[index] for index in batch]
        used = len(batch) * max(sizes) if padded else sum(sizes)
        assert len(batch) == 1 or used <= max(capacity, *lengths)


def test_no_examples_make_no_batches() -> None:
    assert evaluation_batches([], capacity_tokens=10) == []
    assert evaluation_batches([], capacity_tokens=10, padded=True) == []
