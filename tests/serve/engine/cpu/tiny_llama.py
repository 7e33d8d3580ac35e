"""A random two-layer Llama and PEFT adapters for it, small enough to build inside a test."""

from __future__ import annotations

import json
from pathlib import Path

NUM_LAYERS = 2
HIDDEN_SIZE = 64
VOCABULARY_SIZE = 320
# name: (in, out). vLLM's CPU attention wants a head size that is a multiple of 32, `norms_16` an MLP of one of 64.
LINEAR_SIZES = {
    "self_attn.q_proj": (64, 64),
    "self_attn.k_proj": (64, 32),
    "self_attn.v_proj": (64, 32),
    "self_attn.o_proj": (64, 64),
    "mlp.gate_proj": (64, 192),
    "mlp.up_proj": (64, 192),
    "mlp.down_proj": (192, 64),
}


def write_base(folder: Path) -> None:
    """Write the base model (no tokenizer) into `folder`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=HIDDEN_SIZE,
        intermediate_size=192,
        num_hidden_layers=NUM_LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).to(torch.float32).save_pretrained(folder)


def write_adapter(folder: Path, seed: int, rank: int, on_lm_head: bool = False) -> None:
    """Write a random adapter on every linear layer, on request on the vocabulary product too."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    sizes = {
        f"model.layers.{layer}.{name}": size
        for layer in range(NUM_LAYERS)
        for name, size in LINEAR_SIZES.items()
    }
    if on_lm_head:
        sizes["lm_head"] = (HIDDEN_SIZE, VOCABULARY_SIZE)
    tensors = {}
    for name, (in_size, out_size) in sizes.items():
        prefix = f"base_model.model.{name}"
        tensors[f"{prefix}.lora_A.weight"] = torch.randn(rank, in_size, generator=generator) * 0.3
        tensors[f"{prefix}.lora_B.weight"] = torch.randn(out_size, rank, generator=generator) * 0.3
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": sorted({name.rpartition(".")[2] for name in sizes}),
        "bias": "none",
        "base_model_name_or_path": "tiny",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
