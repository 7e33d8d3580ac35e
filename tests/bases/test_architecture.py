from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bases.architecture import ArchitectureFacts, read_architecture
from bases.errors import BaseInvalidError
from bases.tiny import make_tiny_base


def write_config(folder: Path, **config: object) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module", params=["llama", "qwen2", "deepseek_v2", "deepseek_v3"])
def base(request, tmp_path_factory):
    return make_tiny_base(tmp_path_factory.mktemp("bases") / request.param, architecture=request.param)


def test_sizes_are_those_of_the_config(tiny_base):
    facts = read_architecture(tiny_base)
    assert facts.architecture == "LlamaForCausalLM"
    assert facts.model_type == "llama"
    assert (facts.hidden_size, facts.num_layers, facts.vocab_size, facts.context_tokens) == (128, 2, 512, 512)
    assert (facts.num_attention_heads, facts.num_kv_heads, facts.head_dim) == (4, 2, 32)
    assert facts.dtype == "float32"
    assert facts.num_experts == 0
    assert facts.quant_method is None
    assert facts.embeddings == {"model.embed_tokens": (512, 128), "lm_head": (512, 128)}
    assert facts.linear_modules["model.layers.1.self_attn.k_proj"] == (128, 64)
    assert facts.linear_modules["model.layers.0.mlp.down_proj"] == (256, 128)
    assert facts.linear_suffixes() == [
        "down_proj",
        "gate_proj",
        "k_proj",
        "o_proj",
        "q_proj",
        "up_proj",
        "v_proj",
    ]


def test_modules_and_sizes_are_those_of_the_loaded_model(base):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    linear = {
        name: (module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    }
    facts = read_architecture(base)
    assert facts.linear_modules == linear
    assert len(linear) == (16 if facts.model_type.startswith("deepseek") else 14)
    assert facts.num_parameters == model.num_parameters()
    assert facts.architecture == type(model).__name__


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_linear_modules_are_the_targets_that_peft_finds(architecture, tmp_path):
    """Not so where experts are stacked: PEFT then means the experts as well (tests/adapters/test_targets.py)."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = make_tiny_base(tmp_path / "base", architecture=architecture)
    wrapped = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(target_modules="all-linear")
    )
    assert set(wrapped.base_model.targeted_module_names) == read_architecture(base).linear_modules.keys()


def test_no_weights_are_needed(base, tmp_path):
    (tmp_path / "config.json").write_bytes((base / "config.json").read_bytes())
    assert read_architecture(tmp_path) == read_architecture(base)


def test_tied_embeddings_are_seen_and_counted_once(tmp_path):
    tied = read_architecture(make_tiny_base(tmp_path / "tied", tied_embeddings=True))
    untied = read_architecture(make_tiny_base(tmp_path / "untied"))
    assert tied.tied_embeddings
    assert not untied.tied_embeddings
    assert untied.num_parameters - tied.num_parameters == 512 * 128


COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"},
            "input_activations": {
                "num_bits": 8,
                "type": "int",
                "symmetric": True,
                "strategy": "token",
                "dynamic": True,
            },
        }
    },
    "ignore": ["lm_head"],
    "quantization_status": "compressed",
}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 64, "desc_act": False, "sym": True, "lm_head": False}


@pytest.mark.parametrize("quantisation", [COMPRESSED, GPTQ], ids=["compressed-tensors", "gptq"])
def test_a_quantised_base_is_described_as_what_it_was_quantised_from(tiny_base, tmp_path, quantisation):
    folder = tmp_path / "quantised"
    shutil.copytree(tiny_base, folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = quantisation
    (folder / "config.json").write_text(json.dumps(config))
    facts = read_architecture(folder)
    assert facts.quant_method == quantisation["quant_method"]
    assert facts.model_copy(update={"quant_method": None}) == read_architecture(tiny_base)
    assert "model.layers.0.mlp.down_proj" in facts.linear_modules


@pytest.mark.parametrize("architecture", ["deepseek_v2", "deepseek_v3"])
def test_a_head_of_latent_attention_is_as_wide_as_its_query(tmp_path, architecture):
    facts = read_architecture(make_tiny_base(tmp_path / "base", architecture=architecture))
    assert (facts.head_dim, facts.num_attention_heads, facts.num_kv_heads) == (64 + 64, 4, 4)


def test_gpt2_with_its_transposed_layers_works(tmp_path):
    folder = write_config(
        tmp_path / "gpt2", model_type="gpt2", n_embd=64, n_layer=1, n_head=2, n_positions=128, vocab_size=300
    )
    facts = read_architecture(folder)
    assert facts.linear_modules["transformer.h.0.attn.c_attn"] == (64, 192)
    assert facts.linear_modules["transformer.h.0.mlp.c_proj"] == (256, 64)
    assert (facts.hidden_size, facts.num_layers, facts.num_kv_heads, facts.head_dim) == (64, 1, 2, 32)
    assert facts.context_tokens == 128
    assert facts.tied_embeddings


def test_a_mixture_of_experts_lists_its_attention(tmp_path):
    folder = write_config(
        tmp_path / "moe",
        model_type="mixtral",
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=4,
        vocab_size=300,
    )
    facts = read_architecture(folder)
    assert facts.linear_modules["model.layers.0.self_attn.v_proj"] == (64, 32)
    assert facts.num_parameters > 4 * 3 * 64 * 96
    assert facts.num_experts == 4


@pytest.mark.parametrize("architecture", ["deepseek_v2", "deepseek_v3"])
def test_latent_attention_and_shared_experts_are_listed_and_stacked_experts_are_not(tmp_path, architecture):
    facts = read_architecture(make_tiny_base(tmp_path / "base", architecture=architecture))
    assert facts.linear_suffixes() == [
        "down_proj",
        "gate_proj",
        "kv_a_proj_with_mqa",
        "kv_b_proj",
        "o_proj",
        "q_a_proj",
        "q_b_proj",
        "up_proj",
    ]
    assert facts.linear_modules["model.layers.1.self_attn.kv_a_proj_with_mqa"] == (128, 512 + 64)
    assert facts.linear_modules["model.layers.0.mlp.gate_proj"] == (128, 256)
    assert facts.linear_modules["model.layers.1.mlp.shared_experts.down_proj"] == (64, 128)
    assert not any(".experts." in name or name.endswith("mlp.gate") for name in facts.linear_modules)
    assert facts.num_parameters > 3 * 8 * 128 * 64
    assert facts.num_experts == 8


def test_facts_survive_json(tiny_base):
    facts = read_architecture(tiny_base)
    assert ArchitectureFacts.model_validate_json(facts.model_dump_json()) == facts


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "no-such-model"},
        {"model_type": "clip_vision_model"},
        {"hidden_size": 64},
        {"model_type": "custom", "auto_map": {"AutoConfig": "configuration.Custom"}},
    ],
)
def test_a_config_of_no_known_language_model_is_refused(tmp_path, config):
    folder = write_config(tmp_path / "odd", **config)
    with pytest.raises(BaseInvalidError, match=r"transformers .* cannot lay out .*odd/config\.json"):
        read_architecture(folder)
