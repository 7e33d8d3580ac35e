"""Packing: every sequence once, none over the edge, no more rows than a good guess."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.data.packing import pack

CAPACITY = 64
LENGTHS = st.lists(st.integers(1, CAPACITY), max_size=120)


def first_fit(lengths: list[int]) -> int:
    rooms: list[int] = []
    for length in lengths:
        for index, room in enumerate(rooms):
            if room >= length:
                rooms[index] -= length
                break
        else:
            rooms.append(CAPACITY - length)
    return len(rooms)


@given(LENGTHS)
def test_each_sequence_is_in_one_group_and_no_group_is_too_long(lengths: list[int]) -> None:
    groups = pack(lengths, capacity_tokens=CAPACITY)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in group) <= CAPACITY for group in groups)


@given(LENGTHS)
def test_there_are_no_more_groups_than_the_bounds_allow(lengths: list[int]) -> None:
    count = len(pack(lengths, capacity_tokens=CAPACITY))
    fewest = -(-sum(lengths) // CAPACITY)
    assert count >= fewest
    # What is proved for best fit decreasing against the optimum, with first fit as a bound of the optimum.
    assert count <= 11 / 9 * first_fit(lengths) + 1
    assert count <= max(2 * fewest - 1, 0) or count == fewest


def test_best_fit_takes_the_tightest_gap() -> None:
    # 6 and 5 open a row each; 3 fits both and goes to the fuller one.
    assert pack([5, 6, 3], capacity_tokens=9) == [[1, 2], [0]]


def test_equal_lengths_keep_their_order() -> None:
    assert pack([2, 2, 2, 2], capacity_tokens=4) == [[0, 1], [2, 3]]


@pytest.mark.parametrize("lengths", [[0], [3, 65], [-1]])
def test_what_does_not_fit_is_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="a row holds 1 to 64"):
        pack(lengths, capacity_tokens=CAPACITY)
