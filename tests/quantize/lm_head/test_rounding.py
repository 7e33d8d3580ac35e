"""The rounding that is measured and served."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantize.lm_head.rounding import GROUP, restore_table, round_table


@given(
    rows=st.integers(1, 40),
    groups=st.integers(1, 4),
    exponent=st.integers(-20, 20),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_no_weight_moves_by_more_than_half_a_scale_and_what_is_rounded_stays(
    rows, groups, exponent, dtype, seed
):
    generator = torch.Generator().manual_seed(seed)
    table = (torch.randn(rows, 32 * groups, generator=generator) * 2.0**exponent).to(dtype)
    values, scales = round_table(table)
    restored = restore_table(values, scales)
    assert values.dtype == torch.uint8
    assert int(values.min()) >= 1  # symmetric: -127 to 127
    half = scales.double().repeat_interleave(GROUP, 1) / 2
    assert ((restored.double() - table.double()).abs() <= half * (1 + 1e-5)).all()
    again, scales_again = round_table(restored)
    assert torch.equal(again, values)
    assert torch.allclose(scales_again, scales, rtol=1e-6)


def test_rows_of_zeros_stay_zero_and_more_rows_than_a_chunk_are_rounded_alike():
    table = torch.randn(5000, 64)
    table[4999] = 0
    restored = restore_table(*round_table(table))
    assert torch.equal(restored[4999], torch.zeros(64))
    assert torch.equal(restored[4090:4100], restore_table(*round_table(table[4090:4100])))


def test_a_width_that_no_kernel_reads_is_refused():
    with pytest.raises(ValueError, match="72 columns are no multiple of 32"):
        round_table(torch.randn(4, 72))


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_broken_weights_are_refused(broken):
    table = torch.randn(4, 64)
    table[2, 5] = broken
    with pytest.raises(ValueError, match="no finite numbers"):
        round_table(table)


def test_a_table_of_q8_0_blocks_is_met_exactly():
    bytes_of = torch.randint(-127, 128, (20, 4, 32)).float()
    bytes_of[..., 5] = 127  # the largest of a block is what its scale was made from
    table = (bytes_of * torch.rand(20, 4, 1).half().float()).reshape(20, 128)
    restored = restore_table(*round_table(table))
    assert torch.allclose(restored, table, rtol=1e-6, atol=0)
