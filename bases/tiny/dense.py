"""Configuration and weight shapes of tiny Llama and Qwen2 bases."""

from __future__ import annotations

from typing import Any

Shapes = dict[str, tuple[int, ...]]


def dense_config(
    architecture: str,
    *,
    hidden_size: int,
    layers: int,
    heads: int,
    kv_heads: int,
) -> dict[str, Any]:
    """What config.json says beyond the keys that every tiny base has."""
    common: dict[str, Any] = {
        "attention_dropout": 0.0,
        "head_dim": hidden_size // heads,
        "intermediate_size": 2 * hidden_size,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "rms_norm_eps": 1e-5,
    }
    if architecture == "qwen2":
        return {
            **common,
            "architectures": ["Qwen2ForCausalLM"],
            "layer_types": ["full_attention"] * layers,
            "max_window_layers": 28,
            "sliding_window": None,
            "use_sliding_window": False,
        }
    return {
        **common,
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "mlp_bias": False,
        "pretraining_tp": 1,
    }


def dense_layer_shapes(config: dict[str, Any], index: int) -> Shapes:
    """Tensor name -> shape of one layer; Qwen2 has biases on q, k and v."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    query = config["num_attention_heads"] * config["head_dim"]
    key_value = config["num_key_value_heads"] * config["head_dim"]
    block = f"model.layers.{index}"
    shapes: Shapes = {
        f"{block}.input_layernorm.weight": (hidden,),
        f"{block}.post_attention_layernorm.weight": (hidden,),
        f"{block}.self_attn.q_proj.weight": (query, hidden),
        f"{block}.self_attn.k_proj.weight": (key_value, hidden),
        f"{block}.self_attn.v_proj.weight": (key_value, hidden),
        f"{block}.self_attn.o_proj.weight": (hidden, query),
        f"{block}.mlp.gate_proj.weight": (inner, hidden),
        f"{block}.mlp.up_proj.weight": (inner, hidden),
        f"{block}.mlp.down_proj.weight": (hidden, inner),
    }
    if config["model_type"] == "qwen2":
        shapes |= {
            f"{block}.self_attn.q_proj.bias": (query,),
            f"{block}.self_attn.k_proj.bias": (key_value,),
            f"{block}.self_attn.v_proj.bias": (key_value,),
        }
    return shapes
