"""Packed rows: each sample sees itself and nothing else, exactly as if it were alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.data.encode import EncodedExample
from adapters.data.example import Origin
from adapters.errors import TrainingError
from adapters.training import attention, attention_blocks
from adapters.training.attention import (
    IMPLEMENTATION,
    contamination,
    obstacle_to_packing,
    packed_attention,
    register,
)
from adapters.training.attention_blocks import attend_in_blocks
from adapters.training.collate import PackedCollator, PaddedCollator
from bases.tiny import make_tiny_base

register()
LENGTHS = (3, 40, 17, 1, 33, 90)


def sample(length: int, seed: int) -> EncodedExample:
    ids = torch.randint(3, 512, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    return EncodedExample(tuple(ids), (True,) * length, "risk", Origin("x", seed))


SAMPLES = [sample(length, seed) for seed, length in enumerate(LENGTHS)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("attention")
    return {
        "llama": make_tiny_base(root / "llama", architecture="llama"),
        "qwen2": make_tiny_base(root / "qwen2", architecture="qwen2", tied_embeddings=True),
    }


def load(folder: Path, implementation: str, **config: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    changed = AutoConfig.from_pretrained(folder, **config)
    return AutoModelForCausalLM.from_pretrained(
        folder, config=changed, attn_implementation=implementation, dtype=torch.float32
    ).eval()


def mla(implementation: str) -> Any:
    """DeepSeek-V3's attention and experts, whose value heads are smaller than those of queries and keys."""
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    torch.manual_seed(0)
    config = DeepseekV3Config(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=96,
        moe_intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
        q_lora_rank=32,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=16,
        v_head_dim=12,
        pad_token_id=0,
    )
    config._attn_implementation = implementation
    return DeepseekV3ForCausalLM(config).eval()


def packed(samples: Sequence[EncodedExample]) -> dict[str, Any]:
    return PackedCollator()(samples)


def token_logprobs(logits: Any, labels: Any) -> Any:
    """Of the learned tokens, in order."""
    learned = labels[:, 1:] != -100
    chosen = logits[:, :-1].float().log_softmax(-1)
    return chosen[learned].gather(-1, labels[:, 1:][learned][:, None])[:, 0]


def alone(model: Any, samples: Sequence[EncodedExample]) -> Any:
    """Log-probabilities of each sample's tokens without any other."""
    found = []
    for one in samples:
        ids = torch.tensor([one.input_ids])
        if ids.shape[1] > 1:
            found.append(token_logprobs(model(input_ids=ids, use_cache=False).logits, ids))
    return torch.cat(found)


def in_row(model: Any, samples: Sequence[EncodedExample]) -> Any:
    batch = packed(samples)
    labels = batch.pop("labels")
    return token_logprobs(model(**batch, use_cache=False).logits, labels)


def gradients(model: Any, log_probs: Any) -> dict[str, Any]:
    model.zero_grad()
    (-log_probs.sum()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@contextmanager
def calls_of(owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The results of a function while it is called as ever."""
    original, results = getattr(owner, name), []

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        results.append(original(*args, **kwargs))
        return results[-1]

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, wrapper)
        yield results


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_logprobs_and_gradients_are_those_of_each_sample_alone(
    folders: dict[str, Path], architecture: str
) -> None:
    model = load(folders[architecture], IMPLEMENTATION)
    reference = load(folders[architecture], "sdpa")
    together, apart = in_row(model, SAMPLES), alone(reference, SAMPLES)
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)
    expected = gradients(reference, apart)
    found = gradients(model, together)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(
            gradient, expected[name], rtol=2e-3, atol=1e-5 * float(expected[name].abs().max())
        )


def test_the_row_is_what_transformers_computes_with_a_mask(folders: dict[str, Path]) -> None:
    ours = in_row(load(folders["llama"], IMPLEMENTATION), SAMPLES)
    theirs = in_row(load(folders["llama"], "sdpa"), SAMPLES)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_latent_attention_with_experts_is_packed_too() -> None:
    torch.testing.assert_close(
        in_row(mla(IMPLEMENTATION), SAMPLES), alone(mla("sdpa"), SAMPLES), rtol=1e-4, atol=1e-5
    )
    assert obstacle_to_packing(mla(IMPLEMENTATION)) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_tokens_in_the_row_change_nothing(folders: dict[str, Path], dtype: torch.dtype) -> None:
    model = load(folders["llama"], IMPLEMENTATION).to(dtype)
    others = [sample(length, 100 + seed) for seed, length in enumerate(LENGTHS)]
    kept = {1, 4}
    mixed = [SAMPLES[i] if i in kept else others[i] for i in range(len(SAMPLES))]
    bounds = [0, *torch.tensor([max(0, n - 1) for n in LENGTHS]).cumsum(0).tolist()]
    first, second = in_row(model, SAMPLES), in_row(model, mixed)
    for index, (start, end) in enumerate(pairwise(bounds)):
        if index in kept:
            assert torch.equal(first[start:end], second[start:end])
        elif end > start:
            assert not torch.equal(first[start:end], second[start:end])
    assert contamination(model, others[1].input_ids, SAMPLES[1].input_ids, SAMPLES[2].input_ids) == 0.0


def test_contamination_is_seen_where_there_is_some(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(folders["llama"], IMPLEMENTATION)

    def leaky(q: Any, k: Any, v: Any, bounds: Any, **options: Any) -> Any:
        return attend_in_blocks(q, k, v, bounds[[0, -1]], **options)  # the row as one sample

    monkeypatch.setattr(attention, "attend_in_blocks", leaky)
    assert contamination(model, SAMPLES[1].input_ids, sample(40, 9).input_ids, SAMPLES[2].input_ids) > 1e-3


def test_no_mask_is_built_for_a_row_and_its_layout_is_made_once(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(folders["llama"], IMPLEMENTATION)
    with (
        calls_of(attention_blocks, "_make_layout", monkeypatch) as layouts,
        calls_of(attention_blocks, "_layout", monkeypatch) as asked,
    ):
        in_row(model, SAMPLES)
    assert (len(layouts), len(asked)) == (1, model.config.num_hidden_layers)
    from transformers.masking_utils import create_causal_mask

    batch = packed(SAMPLES)
    mask = create_causal_mask(
        model.config,
        torch.zeros(1, sum(LENGTHS), 128),
        attention_mask=None,
        past_key_values=None,
        position_ids=batch["position_ids"],
    )
    assert mask.numel() == 0


def test_padded_batches_and_generation_go_the_usual_way(folders: dict[str, Path]) -> None:
    ours, theirs = load(folders["llama"], IMPLEMENTATION), load(folders["llama"], "sdpa")
    batch = PaddedCollator(0)(SAMPLES)
    labels = batch.pop("labels")
    torch.testing.assert_close(
        token_logprobs(ours(**batch).logits, labels), token_logprobs(theirs(**batch).logits, labels)
    )
    left = {
        "input_ids": torch.tensor([[0, 0, 5, 6], [7, 8, 9, 10]]),
        "attention_mask": torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]),
    }
    options: dict[str, Any] = {
        "max_new_tokens": 8,
        "do_sample": False,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    assert torch.equal(ours.generate(**left, **options), theirs.generate(**left, **options))


def test_gradient_checkpointing_gives_the_same_gradients(folders: dict[str, Path]) -> None:
    model = load(folders["llama"], IMPLEMENTATION)
    expected = gradients(model, in_row(model, SAMPLES))
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    found = gradients(model, in_row(model, SAMPLES))
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name])


def test_half_precision_is_as_near_to_the_truth_as_torchs_own_kernel() -> None:
    generator = torch.Generator().manual_seed(1)
    bounds = torch.tensor([0, 5, 60, 61, 130], dtype=torch.int32)
    exact = [torch.randn(130, heads, 16, generator=generator, dtype=torch.float64) for heads in (6, 2, 2)]
    upstream = torch.randn(130, 6, 16, generator=generator, dtype=torch.float64)

    def results(dtype: torch.dtype) -> list[Any]:
        rows = [x.to(torch.bfloat16).to(dtype).requires_grad_() for x in exact]
        output = attend_in_blocks(rows[0], rows[1], rows[2], bounds, scale=0.25, dropout=0.0)
        return [output, *torch.autograd.grad(output, rows, upstream.to(dtype))]

    for found, expected in zip(results(torch.bfloat16), results(torch.float64), strict=True):
        error = (found.double() - expected).norm() / expected.norm()
        assert error < 2**-7  # two roundings to bfloat16


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(1, 70), min_size=1, max_size=9),
    st.sampled_from([(4, 4), (4, 2), (3, 1)]),
    st.sampled_from([torch.float64, torch.bfloat16]),
)
def test_any_lengths_in_blocks_are_attention_within_samples(
    lengths: list[int], heads: tuple[int, int], dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(sum(lengths))
    query, key, value = (
        torch.randn(sum(lengths), n, 8, generator=generator, dtype=torch.float64).to(dtype)
        for n in (heads[0], heads[1], heads[1])
    )
    bounds = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32)
    found = attend_in_blocks(query, key, value, bounds, scale=0.3, dropout=0.0)
    for start, end in pairwise(bounds.tolist()):
        q, k, v = (x[None, start:end].transpose(1, 2).double() for x in (query, key, value))
        expected = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=0.3, enable_gqa=True
        )
        torch.testing.assert_close(
            found[start:end].double(),
            expected[0].transpose(0, 1),
            **({"rtol": 1e-9, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 0.02, "atol": 0.02}),
        )


def test_sliding_windows_are_obeyed(folders: dict[str, Path]) -> None:
    window = {
        "use_sliding_window": True,
        "sliding_window": 8,
        "max_window_layers": 0,
        "layer_types": ["sliding_attention"] * 2,
    }
    ours, theirs = (load(folders["qwen2"], name, **window) for name in (IMPLEMENTATION, "sdpa"))
    torch.testing.assert_close(in_row(ours, SAMPLES), in_row(theirs, SAMPLES), rtol=1e-4, atol=1e-4)
    whole = in_row(load(folders["qwen2"], IMPLEMENTATION), SAMPLES)
    assert (in_row(ours, SAMPLES) - whole).abs().max() > 0.1


def test_what_cannot_be_packed_is_refused(folders: dict[str, Path]) -> None:
    model = load(folders["llama"], IMPLEMENTATION)
    batch = packed(SAMPLES[:2])
    with pytest.raises(TrainingError, match="cu_seq_lens_q was not passed on"):
        model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False)
    batch["cu_seq_lens_q"] = torch.tensor([0, 3, 40], dtype=torch.int32)
    with pytest.raises(TrainingError, match="spans tokens 0 to 40 of a row of 43"):
        model(**{k: v for k, v in batch.items() if k != "labels"}, use_cache=False)
    row = torch.zeros(1, 2, 43, 8)
    bounds = torch.tensor([0, 43], dtype=torch.int32)
    with pytest.raises(TrainingError, match=r"Module cannot be packed.*softcap.*padded batches"):
        packed_attention(torch.nn.Module(), row, row, row, None, cu_seq_lens_q=bounds, softcap=30.0)
    with pytest.raises(TrainingError, match="causal: False"):
        packed_attention(torch.nn.Module(), row, row, row, None, is_causal=False, cu_seq_lens_q=bounds)


def test_models_that_cannot_be_packed_are_named_before_training(folders: dict[str, Path]) -> None:
    model = load(folders["llama"], IMPLEMENTATION)
    assert obstacle_to_packing(model) is None
    model.config.attn_logit_softcapping = 50.0
    assert "softcap" in str(obstacle_to_packing(model))
    model.config.attn_logit_softcapping = None
    model.config.layer_types = ["linear_attention", "full_attention"]
    assert "linear_attention" in str(obstacle_to_packing(model))
