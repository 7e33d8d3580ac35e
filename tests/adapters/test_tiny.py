from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from adapters.artefact import WEIGHTS_NAME
from adapters.tiny import make_tiny_adapter
from tests.adapters.conftest import LINEAR_MODULES


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    hashes = [
        hashlib.sha256(
            (
                make_tiny_adapter(tmp_path / name, linear_modules=LINEAR_MODULES, seed=seed) / WEIGHTS_NAME
            ).read_bytes()
        ).hexdigest()
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_targets_that_match_nothing_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="c_attn"):
        make_tiny_adapter(tmp_path, linear_modules=LINEAR_MODULES, targets=["c_attn"])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_real_library_reads_what_is_written(tmp_path, dtype):
    import torch
    from safetensors.torch import load_file

    exact = load_file(make_tiny_adapter(tmp_path / "exact", linear_modules=LINEAR_MODULES) / WEIGHTS_NAME)
    found = load_file(
        make_tiny_adapter(tmp_path / "found", linear_modules=LINEAR_MODULES, dtype=dtype) / WEIGHTS_NAME
    )
    assert found.keys() == exact.keys()
    for name, tensor in found.items():
        assert tensor.dtype == getattr(torch, dtype)
        assert torch.equal(tensor, exact[name].to(tensor.dtype))


@pytest.fixture
def llama():
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=99,
    )
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("q_proj", "k_proj", "o_proj", "down_proj")])
def test_peft_loads_every_tensor_and_the_outputs_move_by_the_low_rank_product(tmp_path, llama, targets):
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file

    path: Path = make_tiny_adapter(
        tmp_path / "tiny", linear_modules=LINEAR_MODULES, rank=2, alpha=6, targets=targets, scale=0.5
    )
    weights = load_file(path / WEIGHTS_NAME)
    q_proj = llama.model.layers[0].self_attn.q_proj
    x = torch.randn(5, 32)
    before = q_proj(x).detach()
    tokens = torch.arange(7)[None]
    base_logits = llama(tokens).logits.detach()

    model = PeftModel.from_pretrained(llama, path)

    loaded = {name for name, _ in model.named_parameters() if "lora_" in name}
    assert {name.replace(".default.", ".") for name in loaded} == set(weights)
    adapted = model.base_model.model.model.layers[0].self_attn.q_proj
    a = weights["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"]
    b = weights["base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"]
    torch.testing.assert_close(adapted(x), before + x @ a.T @ b.T * (6 / 2))
    assert (model(tokens).logits - base_logits).abs().max() > 1e-3
