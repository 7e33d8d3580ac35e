"""Tiny quantised Llamas, made with llm-compressor's own rounding in a second: one scheme for each layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VOCABULARY_SIZE = 320
HIDDEN_SIZE, INTERMEDIATE_SIZE, HEAD_SIZE = 96, 160, 32
LINEAR_SIZES = {  # name: (in, out)
    "self_attn.q_proj": (HIDDEN_SIZE, 96),
    "self_attn.k_proj": (HIDDEN_SIZE, 32),
    "self_attn.v_proj": (HIDDEN_SIZE, 32),
    "self_attn.o_proj": (96, HIDDEN_SIZE),
    "mlp.gate_proj": (HIDDEN_SIZE, INTERMEDIATE_SIZE),
    "mlp.up_proj": (HIDDEN_SIZE, INTERMEDIATE_SIZE),
    "mlp.down_proj": (INTERMEDIATE_SIZE, HIDDEN_SIZE),
}


def weights(num_bits: int, *, group: int | None, symmetric: bool = True) -> dict[str, Any]:
    """compressed-tensors arguments of integer weights; `group` None: one scale for each output channel."""
    strategy = {"strategy": "channel"} if group is None else {"strategy": "group", "group_size": group}
    return {"num_bits": num_bits, "type": "int", "symmetric": symmetric, **strategy}


TOKENS_INT8 = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
SCHEMES: dict[str, dict[str, Any]] = {
    "w4a16": {"weights": weights(4, group=32)},
    "w4a16-asymmetric": {"weights": weights(4, group=32, symmetric=False)},
    "w4a16-channel": {"weights": weights(4, group=None)},
    "w8a16": {"weights": weights(8, group=32)},
    "w8a16-channel-asymmetric": {"weights": weights(8, group=None, symmetric=False)},
    "w8a8": {"weights": weights(8, group=None), "input_activations": TOKENS_INT8},
}


def write_quantised(folder: Path, schemes: list[str], *, tied: bool = False) -> None:
    """Write a base whose layer i has `schemes[i]` of SCHEMES; no tokenizer. Vocabulary and norms are bfloat16's."""
    import torch
    from compressed_tensors.quantization import QuantizationScheme
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=HIDDEN_SIZE,
        intermediate_size=INTERMEDIATE_SIZE,
        num_hidden_layers=len(schemes),
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=HEAD_SIZE,
        max_position_embeddings=512,
        initializer_range=0.1,
        tie_word_embeddings=tied,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).to(torch.float32).save_pretrained(folder / "original")
    model = LlamaForCausalLM.from_pretrained(folder / "original", dtype=torch.float32)
    groups = {
        f"layer_{i}": QuantizationScheme(targets=[rf"re:model\.layers\.{i}\..*proj$"], **SCHEMES[scheme])
        for i, scheme in enumerate(schemes)
    }
    oneshot(model=model, recipe=QuantizationModifier(config_groups=groups, ignore=["lm_head"]))
    model.save_pretrained(folder / "quantised", save_compressed=True)


def write_adapter(folder: Path, seed: int, rank: int, num_layers: int) -> None:
    """Write a random adapter on every linear layer."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(num_layers):
        for name, (in_size, out_size) in LINEAR_SIZES.items():
            prefix = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{prefix}.lora_A.weight"] = torch.randn(rank, in_size, generator=generator) * 0.2
            tensors[f"{prefix}.lora_B.weight"] = torch.randn(out_size, rank, generator=generator) * 0.2
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    targets = sorted({name.rpartition(".")[2] for name in LINEAR_SIZES})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank}
    config |= {"target_modules": targets, "bias": "none", "base_model_name_or_path": "tiny"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
