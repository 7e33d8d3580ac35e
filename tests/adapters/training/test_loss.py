"""The loss: learned tokens only, the same in any split of a batch, the same as the whole vocabulary would give."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.data.encode import EncodedExample
from adapters.data.example import Origin
from adapters.training.attention import IMPLEMENTATION, register
from adapters.training.collate import PackedCollator, PaddedCollator
from adapters.training.loss import (
    logit_transform,
    num_learned_tokens,
    supervised_logprobs,
    token_mean_loss,
)
from bases.tiny import make_tiny_base

VOCABULARY, HIDDEN = 37, 12


def reference(
    states: Any, weight: Any, bias: Any, labels: Any, scale: float = 1.0, softcap: float | None = None
) -> Any:
    """All logits at once."""
    logits = torch.nn.functional.linear(states[:, :-1], weight, bias) * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    learned = labels[:, 1:] != -100
    return logits[learned].log_softmax(-1).gather(-1, labels[:, 1:][learned][:, None])[:, 0]


def random_head(seed: int, rows: int, tokens: int, *, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, VOCABULARY, (rows, tokens), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.5] = -100
    return {
        "states": torch.randn(rows, tokens, HIDDEN, generator=generator, dtype=dtype).requires_grad_(),
        "weight": torch.randn(VOCABULARY, HIDDEN, generator=generator, dtype=dtype),
        "bias": torch.randn(VOCABULARY, generator=generator, dtype=dtype),
        "labels": labels,
    }


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 10**6),
    st.integers(1, 3),
    st.integers(1, 9),
    st.booleans(),
    st.sampled_from([(1.0, None), (0.5, 3.0), (2.0, None)]),
    st.sampled_from([1, 4 * VOCABULARY * 2, 10**6]),
)
def test_values_and_gradients_are_those_of_all_logits(
    seed: int,
    rows: int,
    tokens: int,
    has_bias: bool,
    transform: tuple[float, float | None],
    max_bytes: int,
) -> None:
    head = random_head(seed, rows, tokens, dtype=torch.float32)
    bias = head["bias"] if has_bias else None
    scale, softcap = transform
    found = supervised_logprobs(
        head["states"],
        head["weight"],
        bias,
        head["labels"],
        logit_scale=scale,
        softcap=softcap,
        max_logits_bytes=max_bytes,
    )
    expected = reference(head["states"], head["weight"], bias, head["labels"], scale, softcap)
    torch.testing.assert_close(found, expected)
    upstream = torch.linspace(-1, 2, len(expected))
    (gradient,) = torch.autograd.grad(found, head["states"], upstream)
    (wanted,) = torch.autograd.grad(expected, head["states"], upstream)
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5)


def test_a_head_that_is_trained_gets_its_gradient() -> None:
    head = random_head(3, 2, 8, dtype=torch.float32)
    head["weight"].requires_grad_()
    inputs = [head["states"], head["weight"]]
    arguments = (head["states"], head["weight"], None, head["labels"])
    found = torch.autograd.grad(supervised_logprobs(*arguments).sum(), inputs)
    expected = torch.autograd.grad(reference(*arguments).sum(), inputs)
    for gradient, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5)


def test_half_precision_sums_in_float32() -> None:
    head = random_head(5, 2, 30, dtype=torch.float32)
    exact = reference(head["states"], head["weight"].bfloat16().float(), None, head["labels"])
    half = supervised_logprobs(
        head["states"].detach().bfloat16().requires_grad_(), head["weight"].bfloat16(), None, head["labels"]
    )
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, rtol=0.02, atol=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        cast = supervised_logprobs(head["states"], head["weight"], None, head["labels"])
    torch.testing.assert_close(cast, half)
    cast.sum().backward()
    assert head["states"].grad.dtype == torch.float32


def test_the_vocabulary_product_is_made_for_learned_tokens_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    head = random_head(6, 4, 50)
    shapes = []
    original = torch.nn.functional.linear

    def linear(states: Any, weight: Any, bias: Any = None) -> Any:
        shapes.append(states.shape[0])
        return original(states, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    arguments = (head["states"], head["weight"], None, head["labels"])
    supervised_logprobs(*arguments, max_logits_bytes=4 * VOCABULARY * 16)
    assert sum(shapes) == num_learned_tokens(head["labels"]) < 4 * 49
    assert max(shapes) == 16


def test_a_batch_without_a_learned_token_has_a_loss_of_zero_that_can_be_derived() -> None:
    head = random_head(7, 1, 4)
    labels = torch.full((1, 4), -100)
    log_probs = supervised_logprobs(head["states"], head["weight"], None, labels)
    loss = token_mean_loss(log_probs, labels, None, 1)
    loss.backward()
    assert loss.item() == 0 and head["states"].grad.abs().sum() == 0


def test_weights_count_for_their_tokens() -> None:
    labels = torch.tensor([[5, 6, -100, 7]])
    log_probs = torch.tensor([-1.0, -2.0])
    assert token_mean_loss(log_probs, labels, None, 2).item() == 1.5
    weights = torch.tensor([[9.0, 1.0, 9.0, 0.25]])
    assert token_mean_loss(log_probs, labels, weights, torch.tensor(2)).item() == 0.75
    assert num_learned_tokens(labels) == 2


def test_scale_and_cap_of_logits_are_read_from_the_configuration() -> None:
    from transformers import CohereConfig, Gemma2Config, GraniteConfig, LlamaConfig

    assert logit_transform(LlamaConfig()) == (1.0, None)
    assert logit_transform(CohereConfig(logit_scale=0.25)) == (0.25, None)
    assert logit_transform(GraniteConfig(logits_scaling=8.0)) == (0.125, None)
    assert logit_transform(Gemma2Config(final_logit_softcapping=30.0)) == (1.0, 30.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoModelForCausalLM

    register()
    base = make_tiny_base(tmp_path_factory.mktemp("loss") / "tiny")
    return AutoModelForCausalLM.from_pretrained(base, attn_implementation=IMPLEMENTATION, dtype=torch.float32)


def examples() -> list[EncodedExample]:
    """Eight of different lengths, of which different numbers of tokens are learned."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for index, length in enumerate((5, 60, 12, 33, 8, 21, 40, 17)):
        ids = torch.randint(3, 512, (length,), generator=generator).tolist()
        learned = tuple(position >= length - 1 - index for position in range(length))
        made.append(EncodedExample(tuple(ids), learned, ("risk", "chat")[index % 2], Origin("x", index)))
    return made


def loss_of(model: Any, batch: dict[str, Any], num_items: int) -> Any:
    labels, weights = batch.pop("labels"), batch.pop("loss_weights", None)
    states = model.model(**batch, use_cache=False).last_hidden_state
    log_probs = supervised_logprobs(states, model.lm_head.weight, None, labels)
    return token_mean_loss(log_probs, labels, weights, num_items)


@pytest.mark.parametrize("task_weights", [{}, {"chat": 0.3}])
def test_accumulation_changes_neither_loss_nor_gradient(model: Any, task_weights: dict[str, float]) -> None:
    model.lm_head.weight.requires_grad_(False)
    batch = examples()
    num_items = sum(example.num_supervised for example in batch)
    results = {}
    for parts in (1, 2, 4, 8):
        for name, collate in (
            ("packed", PackedCollator(task_weights)),
            ("padded", PaddedCollator(0, task_weights)),
        ):
            model.zero_grad()
            size = len(batch) // parts
            losses = []
            for start in range(0, len(batch), size):
                loss = loss_of(model, collate(batch[start : start + size]), num_items)
                loss.backward()
                losses.append(loss.detach())
            gradient = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
            results[parts, name] = (torch.stack(losses).sum(), gradient)
    whole, gradients = results[1, "packed"]
    for loss, found in results.values():
        torch.testing.assert_close(loss, whole, rtol=1e-5, atol=1e-6)
        for name, gradient in found.items():
            limit = 2e-5 * float(gradients[name].abs().max())
            torch.testing.assert_close(gradient, gradients[name], rtol=1e-3, atol=limit)
    per_part_means = torch.stack(
        [loss_of(model, PackedCollator()([e]), e.num_supervised) for e in batch]
    ).mean()
    assert not torch.isclose(per_part_means, whole, rtol=1e-3)  # the mistake that num_items guards against
