"""Packed rows on a GPU: flash attention over rows in half precision, blocks in float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from adapters.data.encode import EncodedExample
from adapters.data.example import Origin
from adapters.training import attention
from adapters.training.attention import IMPLEMENTATION, contamination, packed_attention, register
from adapters.training.collate import PackedCollator
from adapters.training.loss import supervised_logprobs, token_mean_loss
from bases.tiny import make_tiny_base

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
LENGTHS = (3, 200, 17, 1, 33, 90)


def sample(length: int, seed: int) -> EncodedExample:
    ids = torch.randint(3, 512, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    return EncodedExample(tuple(ids), (True,) * length, "risk", Origin("x", seed))


SAMPLES = [sample(length, seed) for seed, length in enumerate(LENGTHS)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoModelForCausalLM

    register()
    base = make_tiny_base(tmp_path_factory.mktemp("gpu") / "tiny", architecture="qwen2")
    return AutoModelForCausalLM.from_pretrained(base, attn_implementation=IMPLEMENTATION).cuda()


def loss_and_gradients(
    model: Any, batches: list[list[EncodedExample]], *, share: bool = False
) -> tuple[float, dict[str, Any]]:
    model.zero_grad()
    total = 0.0
    num_items = sum(one.num_supervised for batch in batches for one in batch)
    for samples in batches:
        collated = PackedCollator(share_prefixes=share)(samples)
        batch = {k: v.cuda() if torch.is_tensor(v) else v for k, v in collated.items()}
        labels = batch.pop("labels")
        states = model.model(**batch, use_cache=False).last_hidden_state
        log_probs = supervised_logprobs(states, model.lm_head.weight.detach(), None, labels)
        loss = token_mean_loss(log_probs, labels, None, num_items)
        loss.backward()
        total += loss.item()
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_has_the_loss_and_gradients_of_its_samples(model: Any, dtype: torch.dtype) -> None:
    model.to(dtype)
    together, found = loss_and_gradients(model, [SAMPLES])
    apart, expected = loss_and_gradients(model, [[one] for one in SAMPLES])
    limit = 1e-3 if dtype == torch.float32 else 0.1  # of the gradient's size; products differ in shape
    assert together == pytest.approx(apart, rel=limit)
    for name, gradient in found.items():
        error = (gradient.float() - expected[name].float()).norm() / expected[name].float().norm()
        assert error < limit, (name, float(error))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_beginning_that_samples_share_changes_no_gradient(model: Any, dtype: torch.dtype) -> None:
    model.to(dtype)
    start = sample(40, 7).input_ids
    samples = [
        EncodedExample(start + one.input_ids, (False,) * 41 + one.supervised[1:], "risk", one.origin)
        for one in SAMPLES
    ]
    apart, expected = loss_and_gradients(model, [samples])
    together, found = loss_and_gradients(model, [samples], share=True)
    limit = 1e-3 if dtype == torch.float32 else 0.1
    assert together == pytest.approx(apart, rel=limit)
    for name, gradient in found.items():
        error = (gradient.float() - expected[name].float()).norm() / expected[name].float().norm()
        assert error < limit, (name, float(error))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_samples_do_not_see_each_other(model: Any, dtype: torch.dtype) -> None:
    model.to(dtype)
    first, other, second = SAMPLES[1].input_ids, sample(200, 99).input_ids, SAMPLES[2].input_ids
    assert contamination(model, first, other, second) == 0.0


@pytest.mark.parametrize(
    ("size", "value_size", "heads"), [(64, 64, (6, 2)), (24, 20, (4, 4)), (192, 128, (4, 4))]
)
def test_both_kernels_agree(
    monkeypatch: pytest.MonkeyPatch, size: int, value_size: int, heads: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    tokens = sum(LENGTHS)
    rows = [
        torch.randn(1, n, tokens, width, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for n, width in ((heads[0], size), (heads[1], size), (heads[1], value_size))
    ]
    bounds = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0).tolist()], dtype=torch.int32, device="cuda")
    upstream = torch.randn(1, tokens, heads[0], value_size, device="cuda", dtype=torch.bfloat16)

    def results() -> list[Any]:
        output, _ = packed_attention(torch.nn.Module(), rows[0], rows[1], rows[2], None, cu_seq_lens_q=bounds)
        return [output, *torch.autograd.grad(output, rows, upstream)]

    assert attention._has_varlen_kernel(rows[0])
    fast = results()
    monkeypatch.setattr(attention, "_has_varlen_kernel", lambda _: False)
    for found, expected in zip(fast, results(), strict=True):
        assert (found.float() - expected.float()).norm() / expected.float().norm() < 0.02
