"""The grouping of a step's rows by adapter slot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.engine.cpu.slot_plan import MIN_SEGMENT_ROWS, Segment, plan_rows

runs = st.lists(st.tuples(st.integers(-1, 40), st.integers(1, 80)), max_size=12)
scattered = st.lists(st.integers(-1, 40), max_size=120)
slot_lists = st.one_of(scattered, runs.map(lambda pairs: [slot for slot, n in pairs for _ in range(n)]))


@given(slots=slot_lists)
def test_every_row_with_an_adapter_is_served_once_and_by_its_own_slot(slots):
    plan = plan_rows(slots)
    served = [-1] * len(slots)
    for segment in plan.segments:
        for row in range(segment.first_row, segment.first_row + segment.num_rows):
            assert served[row] == -1
            served[row] = segment.slot
    slot_at = [
        slot
        for group in plan.groups
        for slot in range(group.first_slot, group.first_slot + group.num_slots)
        for _ in range(group.rows_per_slot)
    ]
    assert len(slot_at) == len(plan.gathered_rows)
    for row, position in zip(plan.loose_rows.tolist(), plan.positions.tolist(), strict=True):
        assert served[row] == -1
        assert plan.gathered_rows[position] == row
        served[row] = slot_at[position]
    assert served == slots
    assert plan.slots == tuple(sorted(set(slots) - {-1}))


@given(slots=slot_lists)
def test_positions_for_every_row_send_unserved_rows_past_the_end(slots):
    plan = plan_rows(slots)
    if plan.all_positions is None:
        return
    loose = dict(zip(plan.loose_rows.tolist(), plan.positions.tolist(), strict=True))
    past_the_end = len(plan.gathered_rows)
    assert plan.all_positions.tolist() == [loose.get(row, past_the_end) for row in range(len(slots))]


def test_one_adapter_for_the_whole_batch_is_one_segment_without_copies():
    assert plan_rows([3] * 5).segments == (Segment(3, 0, 5),)


def test_prompts_are_segments_and_decoding_rows_one_group():
    plan = plan_rows([2] * MIN_SEGMENT_ROWS + [-1, 0, 1, 2, 3])
    assert plan.segments == (Segment(2, 0, MIN_SEGMENT_ROWS),)
    assert [(group.first_slot, group.num_slots, group.rows_per_slot) for group in plan.groups] == [(0, 4, 1)]


@pytest.mark.parametrize(("slots", "num_groups"), [([0, 63], 2), ([0, 5], 1), ([0, 1] * 20 + [2, 3], 2)])
def test_a_group_is_padded_only_while_that_costs_less_than_another_product(slots, num_groups):
    assert len(plan_rows(slots).groups) == num_groups
