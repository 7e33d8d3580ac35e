"""The closed form against the textbook's formula, gradient descent, and what must hold for any problem."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantize.recovery.closed_form import best_factors, weighted_square


def problem(out: int, into: int, tokens: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An error and the second moment of inputs of very different sizes; singular with fewer tokens than inputs."""
    source = torch.Generator().manual_seed(seed)
    scales = torch.logspace(-2, 1, into, dtype=torch.float64)
    inputs = torch.randn(into, tokens, generator=source, dtype=torch.float64) * scales[:, None]
    return torch.randn(out, into, generator=source, dtype=torch.float64), inputs @ inputs.T / tokens


@given(
    out=st.integers(1, 24),
    into=st.integers(1, 24),
    tokens=st.integers(1, 60),
    rank=st.integers(1, 30),
    seed=st.integers(0, 10_000),
)
@settings(deadline=None, max_examples=60)
def test_what_is_left_is_the_tail_of_the_weighted_singular_values(
    out: int, into: int, tokens: int, rank: int, seed: int
) -> None:
    error, moment = problem(out, into, tokens, seed)
    values, vectors = torch.linalg.eigh(moment)
    root = vectors * values.clamp_min(0).sqrt()
    squares = torch.linalg.svdvals(error @ root).square()
    left = weighted_square(error - best_factors(error, moment, rank).dense(), moment)
    lost = weighted_square(error, moment)
    # float32 factors of a float64 problem
    assert left == pytest.approx(float(squares[rank:].sum()), abs=1e-10 * lost + 1e-12)
    assert left <= lost * (1 + 1e-9)


@pytest.mark.parametrize(("out", "into"), [(20, 12), (12, 20)])
def test_gradient_descent_finds_nothing_better(out: int, into: int) -> None:
    error, moment = problem(out, into, 64, seed=3)
    best = weighted_square(error - best_factors(error, moment, 3).dense(), moment)
    source = torch.Generator().manual_seed(0)
    up = torch.randn(out, 3, generator=source, dtype=torch.float64).requires_grad_()
    down = torch.randn(3, into, generator=source, dtype=torch.float64).requires_grad_()
    optimiser = torch.optim.LBFGS([up, down], max_iter=800, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        rest = error - up @ down
        value = ((rest @ moment) * rest).sum()
        value.backward()
        return value

    optimiser.step(loss)
    reached = float(loss().detach())
    assert reached == pytest.approx(best, rel=1e-3)
    assert reached >= best * (1 - 1e-6)


@pytest.mark.parametrize(("out", "into"), [(20, 12), (12, 20), (16, 16)])
def test_full_rank_leaves_nothing(out: int, into: int) -> None:
    error, moment = problem(out, into, 100, seed=1)
    factors = best_factors(error, moment, 64)
    assert factors.rank == min(out, into)
    assert torch.allclose(factors.dense(), error, atol=1e-5)


def test_no_error_gives_an_adapter_that_does_nothing() -> None:
    _, moment = problem(6, 8, 20, seed=0)
    factors = best_factors(torch.zeros(6, 8), moment, 4)
    assert not factors.b.any() and not factors.a.any()


def test_the_inputs_decide_which_directions_are_kept() -> None:
    error = torch.diag(torch.tensor([3.0, 1.0]))
    rarely_first = torch.diag(torch.tensor([0.01, 1.0]))
    kept = best_factors(error, rarely_first, 1).dense()
    assert torch.allclose(kept, torch.diag(torch.tensor([0.0, 1.0], dtype=torch.float64)), atol=1e-6)
