"""The operator that adds adapters, against float64, with each instruction set of this processor."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve.engine.cpu.packed_factors import ADDED, STALE, UNFIT
from tests.serve.engine.cpu.lora_batch import LoraLayer, expected_output, make_layer

each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])

SLICES = [(1,), (64,), (65, 31), (96, 32, 7), (200,)]
MAX_RANK = 40
THREADED_ROWS = 300  # work enough for several threads


@st.composite
def batches(draw: st.DrawFn) -> tuple[LoraLayer, list[int], float]:
    """A layer of up to five adapters in either type, a batch of up to 80 rows, -1 among them, and a scale."""
    ranks = draw(st.lists(st.integers(0, MAX_RANK), min_size=1, max_size=5))
    in_size = draw(st.one_of(st.integers(1, 100), st.sampled_from([64, 576])))
    slices = draw(st.sampled_from(SLICES))
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16]))
    layer = make_layer(ranks, in_size, slices, MAX_RANK, dtype, seed=draw(st.integers(0, 99)))
    slots = draw(st.lists(st.integers(-1, len(ranks) - 1), min_size=1, max_size=80))
    return layer, slots, draw(st.sampled_from([1.0, 0.5]))


def lay_out(layer: LoraLayer, slots: list[int] | None = None) -> Any:
    factors = torch.classes.hotswap_lowbit.LoraLayer(list(layer.a), list(layer.b), list(layer.output_slices))
    for slot in range(layer.num_slots) if slots is None else slots:
        factors.lay_out(slot, MAX_RANK)
    factors.accept()
    return factors


def inputs(layer: LoraLayer, num_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(num_rows)
    x = torch.randn(num_rows, layer.in_size, generator=generator)
    y = torch.randn(num_rows, sum(layer.output_slices), generator=generator)
    return x.to(layer.a[0].dtype), y.to(layer.a[0].dtype)


def add(
    native: Any, layer: Any, y: torch.Tensor, x: torch.Tensor, slots: list[int], scale: float = 1.0
) -> int:
    plan = native.lora_plan(torch.tensor(slots))
    return int(native.lora_add(y, x, layer.address(), plan, scale))


@given(batch=batches())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_row_gets_its_own_adapter_rounded_once_and_base_rows_stay(native, batch):
    layer, slots, scale = batch
    x, before = inputs(layer, len(slots))
    y = before.clone()
    assert add(native, lay_out(layer), y, x, slots, scale) == ADDED
    scaled = LoraLayer(layer.a, tuple(b.double() * scale for b in layer.b), layer.output_slices)
    exact = expected_output(before, x, scaled, slots)
    rounding = 2.0**-8 * exact.abs() if y.dtype == torch.bfloat16 else 0.0
    assert ((y.double() - exact).abs() <= rounding + 1e-4).all()
    base_rows = [row for row, slot in enumerate(slots) if slot < 0]
    assert torch.equal(y[base_rows], before[base_rows])


@given(batch=batches())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_row_is_bit_for_bit_the_same_alone_and_among_others(native, batch):
    layer, slots, scale = batch
    factors = lay_out(layer)
    x, before = inputs(layer, len(slots))
    together = before.clone()
    add(native, factors, together, x, slots, scale)
    for row, slot in enumerate(slots):
        alone = before[row : row + 1].clone()
        add(native, factors, alone, x[row : row + 1], [slot], scale)
        assert torch.equal(alone[0], together[row])


@each_dtype
def test_threads_change_no_bit(native, dtype):
    layer = make_layer([8, 0, 33, 40], 576, (192, 64), MAX_RANK, dtype)
    factors = lay_out(layer)
    slots = [row % 5 - 1 for row in range(THREADED_ROWS)]
    x, before = inputs(layer, len(slots))
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(before.clone())
            add(native, factors, results[-1], x, slots)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@each_dtype
@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
def test_what_is_no_number_stays_with_its_own_rows(native, dtype, bad):
    layer = make_layer([3, 3, 3], 70, (33, 40), MAX_RANK, dtype)
    slots = [0, 1, -1, 2, 0, 1]
    x, before = inputs(layer, len(slots))
    wanted = before.clone()
    add(native, lay_out(layer), wanted, x, slots)
    layer.a[0][1, 0, 0, 0] = bad
    layer.b[1][2, 0, 0, 0] = bad
    y = before.clone()
    add(native, lay_out(layer), y, x, slots)
    assert torch.equal(y[[0, 2, 4]], wanted[[0, 2, 4]])
    assert not y[[1, 5], :33].isfinite().any()  # a hidden value reaches all columns of its slice
    assert torch.equal(y[[1, 5], 33:], wanted[[1, 5], 33:])
    assert not y[3, 33].isfinite()
    assert torch.equal(y[3, 34:], wanted[3, 34:])


@each_dtype
def test_a_slice_that_an_adapter_lacks_is_left_alone(native, dtype):
    layer = make_layer([4], 64, (32, 32), MAX_RANK, dtype)
    layer.a[1].zero_()
    x, before = inputs(layer, 2)
    before[:, 32:] = -0.0
    y = before.clone()
    add(native, lay_out(layer), y, x, [0, 0])
    assert not torch.equal(y[:, :32], before[:, :32])
    assert y[:, 32:].signbit().all()


def test_rows_may_be_further_apart_than_their_columns(native):
    layer = make_layer([4], 64, (40,), MAX_RANK)
    wide_x, wide_y = torch.randn(3, 100), torch.zeros(3, 70)
    x = wide_x[:, 20:84]
    assert add(native, lay_out(layer), wide_y, x, [0, -1, 0]) == ADDED
    exact = expected_output(torch.zeros(3, 40), x, layer, [0, -1, 0])
    torch.testing.assert_close(wide_y[:, :40].double(), exact, rtol=1e-5, atol=1e-5)
    assert not wide_y[:, 40:].any()


def test_nothing_is_added_before_a_slot_is_laid_out_or_after_it_was_written(native):
    layer = make_layer([4, 4], 64, (40,), MAX_RANK)
    factors = lay_out(layer, slots=[0])
    x, y = inputs(layer, 1)
    before = y.clone()
    assert add(native, factors, y, x, [1]) == STALE
    layer.b[0][0] *= 2
    assert add(native, factors, y, x, [0]) == STALE
    factors.lay_out(0, MAX_RANK)
    factors.accept()
    factors.drop(0)
    assert add(native, factors, y, x, [0]) == STALE
    assert torch.equal(y, before)


def test_other_shapes_and_types_are_refused_untouched(native):
    layer = make_layer([4], 64, (40,), MAX_RANK)
    factors = lay_out(layer)
    x, y = inputs(layer, 2)
    for bad_y, bad_x in (
        (y.bfloat16(), x.bfloat16()),
        (y.half(), x),
        (y, x[:1]),
        (y[:, :39], x),
        (y, x[:, :63]),
        (y.unsqueeze(0), x),
        (y, x.T.contiguous().T),
    ):
        before = bad_y.clone()
        assert add(native, factors, bad_y, bad_x, [0, 0]) == UNFIT
        assert torch.equal(bad_y, before)


@given(slots=st.lists(st.integers(-1, 6), max_size=200))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_plan_holds_each_row_with_an_adapter_once_in_pieces_of_its_slot(native, slots):
    plan = native.lora_plan(torch.tensor(slots, dtype=torch.int64)).tolist()
    num_rows, num_pieces = plan[:2]
    assert num_rows == len(slots)
    rows = plan[2 + 3 * num_pieces :]
    assert sorted(rows) == [row for row, slot in enumerate(slots) if slot >= 0]
    covered = 0
    for piece in range(num_pieces):
        slot, first, count = plan[2 + 3 * piece : 5 + 3 * piece]
        assert first == covered
        assert 0 < count <= 64
        assert {slots[row] for row in rows[first : first + count]} == {slot}
        covered += count
    assert covered == len(rows)
