"""What samples begin with is computed once, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adapters.data.encode import EncodedExample
from adapters.data.example import Origin
from adapters.training.attention import IMPLEMENTATION, register, sharing_error
from adapters.training.collate import NOT_LEARNED, PackedCollator
from adapters.training.loss import supervised_logprobs, token_mean_loss
from adapters.training.shared_prefix import expand_row, share_prefixes
from bases.tiny import make_tiny_base


def example(ids: list[int], learned_from: int) -> EncodedExample:
    supervised = tuple(place >= learned_from for place in range(len(ids)))
    return EncodedExample(tuple(ids), supervised, "risk", Origin("x", 1))


@st.composite
def rows(draw: Any) -> list[EncodedExample]:
    # Few kinds of tokens, so that beginnings are often the same.
    texts = draw(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=6))
    return [example(ids, draw(st.integers(0, len(ids)))) for ids in texts]


@given(rows())
def test_every_sample_finds_its_tokens_in_the_row(samples: list[EncodedExample]) -> None:
    shared = share_prefixes(samples)
    assert sorted(shared.order) == list(range(len(samples)))
    row = [
        token
        for index, start in zip(shared.order, shared.own_starts, strict=True)
        for token in samples[index].input_ids[start:]
    ]
    expanded = [row[place] for place in shared.tokens]
    assert expanded == [token for index in shared.order for token in samples[index].input_ids]
    assert [shared.tokens[place] for place in shared.places] == list(range(len(row)))


@given(rows())
def test_nothing_that_is_learned_is_shared(samples: list[EncodedExample]) -> None:
    shared = share_prefixes(samples)
    for index, start in zip(shared.order, shared.own_starts, strict=True):
        # Not what is shared, and not the first token after it: its state lies in another's part of the row.
        assert not any(samples[index].supervised[: start + 1 if start else 0])
    learned = PackedCollator(share_prefixes=True)(samples)["labels"] != NOT_LEARNED
    assert learned.sum() == sum(one.num_supervised for one in samples)


@given(rows())
def test_samples_with_nothing_in_common_lie_as_they_came(samples: list[EncodedExample]) -> None:
    if share_prefixes(samples).num_saved == 0:
        with_sharing, without = PackedCollator(share_prefixes=True)(samples), PackedCollator()(samples)
        assert "packed_tokens" not in with_sharing
        assert torch.equal(with_sharing["input_ids"], without["input_ids"])


def test_gradients_of_a_shared_token_are_added_up() -> None:
    row = torch.ones(3, 2, requires_grad=True)
    expand_row(row, torch.tensor([0, 1, 0, 2, 0])).sum().backward()
    assert row.grad is not None
    assert row.grad[:, 0].tolist() == [3.0, 1.0, 1.0]


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoModelForCausalLM

    register()
    base: Path = make_tiny_base(tmp_path_factory.mktemp("shared") / "tiny", architecture=request.param)
    return AutoModelForCausalLM.from_pretrained(base, attn_implementation=IMPLEMENTATION)


def loss_and_gradients(model: Any, samples: list[EncodedExample], *, shared: bool) -> tuple[float, list[Any]]:
    model.zero_grad()
    batch = PackedCollator(share_prefixes=shared)(samples)
    labels = batch.pop("labels")
    states = model.model(**batch, use_cache=False).last_hidden_state
    log_probs = supervised_logprobs(states, model.lm_head.weight, None, labels)
    loss = token_mean_loss(log_probs, labels, None, sum(one.num_supervised for one in samples))
    loss.backward()
    return loss.item(), [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_and_gradients_are_those_without_sharing(model: Any, dtype: torch.dtype) -> None:
    model.to(dtype)
    generator = torch.Generator().manual_seed(0)

    def some(count: int) -> list[int]:
        drawn: list[int] = torch.randint(3, 512, (count,), generator=generator).tolist()
        return drawn

    system, other = some(20), some(12)
    samples = [example([*system, *some(length)], 20 + length - 3) for length in (5, 9, 30, 31)]
    samples += [example([*other, *some(7)], 15), example([*other, *some(9)], 16), example(some(6), 4)]
    assert share_prefixes(samples).num_saved >= 3 * 20 + 12
    shared, found = loss_and_gradients(model, samples, shared=True)
    expected_loss, expected = loss_and_gradients(model, samples, shared=False)
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    assert shared == pytest.approx(expected_loss, rel=tolerance)
    for one, other_one in zip(found, expected, strict=True):
        assert (one - other_one).float().norm() <= tolerance * other_one.float().norm() + 1e-6
    model.to(torch.float32)


def test_a_model_that_looks_at_shared_beginnings_is_told_from_one_that_does_not(model: Any) -> None:
    sample = list(range(40, 60))
    assert sharing_error(model, sample) < 1e-5
    try:
        model.set_attn_implementation("sdpa")
        assert sharing_error(model, sample) > 0.01
    finally:
        model.set_attn_implementation(IMPLEMENTATION)
