"""The divergence and its gradient against PyTorch's own over all logits at once."""

from __future__ import annotations

import pytest
import torch

from quantize.recovery.divergence import Head, token_divergences

TOKENS, HIDDEN, VOCABULARY = 11, 8, 50


def plain_logits(states: torch.Tensor, head: Head) -> torch.Tensor:
    logits = (states @ head.weight.T + (0 if head.bias is None else head.bias)) * head.scale
    return logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)


@pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (0.5, None), (1.5, 3.0)])
@pytest.mark.parametrize("bytes_at_once", [1, 3 * 8 * VOCABULARY, 1 << 20])
def test_values_and_gradient_are_those_of_all_logits_at_once(
    scale: float, softcap: float | None, bytes_at_once: int
) -> None:
    source = torch.Generator().manual_seed(0)
    heads = [
        Head(
            torch.randn(VOCABULARY, HIDDEN, generator=source),
            torch.randn(VOCABULARY, generator=source),
            scale,
            softcap,
        )
        for _ in range(2)
    ]
    expected_states = torch.randn(TOKENS, HIDDEN, generator=source)
    states = torch.randn(TOKENS, HIDDEN, generator=source).requires_grad_()
    weights = torch.rand(TOKENS, generator=source)
    found = token_divergences(expected_states, heads[0], states, heads[1], max_logits_bytes=bytes_at_once)
    (found * weights).sum().backward()
    gradient, states.grad = states.grad, None
    expected = torch.nn.functional.kl_div(
        plain_logits(states, heads[1]).log_softmax(-1),
        plain_logits(expected_states, heads[0]).log_softmax(-1),
        log_target=True,
        reduction="none",
    ).sum(-1)
    (expected * weights).sum().backward()
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert gradient is not None and states.grad is not None
    assert torch.allclose(gradient, states.grad, rtol=1e-3, atol=1e-5)


def test_a_model_does_not_diverge_from_itself() -> None:
    head = Head(torch.randn(VOCABULARY, HIDDEN), None, 1.0, None)
    states = torch.randn(TOKENS, HIDDEN)
    assert float(token_divergences(states, head, states, head).abs().max()) < 1e-6
