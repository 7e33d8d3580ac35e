"""Random layers and their exact outputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st

EPSILON = 2.0**-24


@dataclass(frozen=True)
class Case:
    """Sizes of a layer and what it has."""

    tokens: int
    rows: int
    columns: int
    bits: int
    group: int
    has_zeros: bool
    has_bias: bool
    dtype: torch.dtype
    magnitude: float
    seed: int

    @property
    def shared(self) -> int:
        return self.columns if self.group == -1 else self.group


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Tails of tiles, of panels and of blocks of tokens; groups that divide the columns."""
    group = draw(st.sampled_from([8, 32, 64, 96, 128, -1]))
    step = 32 if group in (8, -1) else group
    return Case(
        tokens=draw(st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33, 200])),
        rows=draw(st.integers(1, 70)),
        columns=step * draw(st.integers(1, 640 // step)),
        bits=draw(st.sampled_from([4, 8])),
        group=group,
        has_zeros=draw(st.booleans()),
        has_bias=draw(st.booleans()),
        dtype=draw(st.sampled_from([torch.float32, torch.bfloat16])),
        magnitude=draw(st.sampled_from([1e-25, 1.0, 1e25])),
        seed=draw(st.integers(0, 2**31)),
    )


@dataclass(frozen=True)
class Layer:
    """A layer of weights of few bits, an input, and the exact output in float64."""

    x: torch.Tensor
    values: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None
    bias: torch.Tensor | None
    exact: torch.Tensor
    bound: torch.Tensor  # what float32 may be off by, for each output

    @classmethod
    def of(cls, case: Case) -> Layer:
        generator = torch.Generator().manual_seed(case.seed)
        groups = case.columns // case.shared
        levels = 2**case.bits
        values = torch.randint(0, levels, (case.rows, case.columns), dtype=torch.uint8, generator=generator)
        scales = torch.rand(case.rows, groups, generator=generator) * 0.1
        zeros = torch.randint(0, levels, (case.rows, groups), dtype=torch.uint8, generator=generator)
        x = (torch.randn(case.tokens, case.columns, generator=generator) * case.magnitude).to(case.dtype)
        bias = torch.randn(case.rows, generator=generator) * case.magnitude
        shift = zeros.double() if case.has_zeros else torch.full((case.rows, groups), levels / 2).double()
        weight = (
            (values.double().unflatten(1, (groups, -1)) - shift.unsqueeze(-1)) * scales.double().unsqueeze(-1)
        ).flatten(1)
        exact = x.double() @ weight.t() + (bias.double() if case.has_bias else 0.0)
        size = x.double().abs() @ weight.abs().t() + bias.double().abs()
        bound = 32 * EPSILON * size + (exact.abs() * 2.0**-8 if case.dtype == torch.bfloat16 else 0.0)
        return cls(
            x,
            values,
            scales,
            zeros if case.has_zeros else None,
            bias if case.has_bias else None,
            exact,
            bound,
        )

    def check(self, got: torch.Tensor) -> None:
        assert got.dtype == self.x.dtype
        assert got.shape == self.exact.shape
        off = (got.double() - self.exact).abs()
        assert bool((off <= self.bound).all()), f"off by up to {float((off / self.bound).max()):.1f} bounds"
