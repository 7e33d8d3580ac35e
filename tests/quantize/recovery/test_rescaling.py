"""Scales that a quantiser moved between layers are found and taken into account."""

from __future__ import annotations

import pytest
import torch

from quantize.recovery.rescaling import has_moved_scales, rounding_error


def rounded(weight: torch.Tensor, bits: int) -> torch.Tensor:
    scale = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    return (weight / scale).round() * scale


@pytest.fixture
def weight() -> torch.Tensor:
    return torch.randn(96, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bits", [4, 8])
def test_without_moved_scales_the_error_is_the_plain_difference(weight: torch.Tensor, bits: int) -> None:
    quantised = rounded(weight, bits)
    assert not has_moved_scales(weight, quantised)
    assert torch.equal(rounding_error(weight, quantised), weight.double() - quantised.double())


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("moved", ["columns", "rows", "both"])
def test_moved_scales_do_not_count_as_error(weight: torch.Tensor, bits: int, moved: str) -> None:
    source = torch.Generator().manual_seed(1)
    rows = torch.exp(0.5 * torch.randn(96, 1, generator=source)) if moved != "columns" else torch.ones(96, 1)
    columns = torch.exp(0.5 * torch.randn(1, 64, generator=source)) if moved != "rows" else torch.ones(1, 64)
    scaled = weight * rows * columns
    quantised = rounded(scaled, bits)
    true = (scaled - quantised).double()
    assert has_moved_scales(weight, quantised)
    found = rounding_error(weight, quantised)
    assert float((found - true).norm() / true.norm()) < 0.25
    assert float(found.norm()) <= float(true.norm()) * 1.001
