"""Configuration and weight shapes of tiny DeepSeek-V2 and -V3 bases: latent attention (MLA) and experts.

What kernels are built for is as in the real models (latent of 512, rotary part of 64); the rest is small. Keys
and values have heads of different width, the first layer is dense, the others choose 2 of 8 experts beside a
shared one. The checkpoint holds every expert by itself, as the published ones do.
"""

from __future__ import annotations

from typing import Any

from bases.tiny.dense import Shapes
from bases.tiny.tokenizer import TINY_CONTEXT_TOKENS

KV_LATENT = 512
ROPE_HEAD_DIM = 64
_EXPERTS = 8
# As in the published models, with TINY_CONTEXT_TOKENS for the context of 160 Ki tokens.
_YARN = {
    "beta_fast": 32,
    "beta_slow": 1,
    "factor": 4.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "original_max_position_embeddings": TINY_CONTEXT_TOKENS // 4,
    "rope_theta": 10000.0,
    "rope_type": "yarn",
}


def deepseek_config(architecture: str, *, hidden_size: int, heads: int) -> dict[str, Any]:
    """What config.json says beyond the keys that every tiny base has."""
    common: dict[str, Any] = {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "first_k_dense_replace": 1,
        "head_dim": ROPE_HEAD_DIM,
        "intermediate_size": 2 * hidden_size,
        "kv_lora_rank": KV_LATENT,
        "moe_intermediate_size": hidden_size // 2,
        "moe_layer_freq": 1,
        "n_group": 2,
        "n_routed_experts": _EXPERTS,
        "n_shared_experts": 1,
        "num_attention_heads": heads,
        "num_experts_per_tok": 2,
        "num_key_value_heads": heads,
        "pretraining_tp": 1,
        "qk_head_dim": ROPE_HEAD_DIM + 64,
        "qk_nope_head_dim": 64,
        "qk_rope_head_dim": ROPE_HEAD_DIM,
        "rope_parameters": _YARN,
        "rms_norm_eps": 1e-6,  # transformers norms the latents with this value whatever is written here
        "v_head_dim": 32,
    }
    if architecture == "deepseek_v2":  # as DeepSeek-V2, whose smaller sister has no latent for queries
        return {
            **common,
            "architectures": ["DeepseekV2ForCausalLM"],
            "mlp_bias": False,
            "norm_topk_prob": False,
            "q_lora_rank": 96,
            "routed_scaling_factor": 1.0,
            "scoring_func": "softmax",
            "topk_group": 1,
            "topk_method": "group_limited_greedy",
        }
    return {
        **common,
        "architectures": ["DeepseekV3ForCausalLM"],
        "norm_topk_prob": True,
        "num_nextn_predict_layers": 0,
        "q_lora_rank": 96,
        "rope_interleave": True,
        "routed_scaling_factor": 2.5,
        "scoring_func": "sigmoid",
        "topk_group": 1,
        "topk_method": "noaux_tc",
    }


def deepseek_layer_shapes(config: dict[str, Any], index: int) -> Shapes:
    """Tensor name -> shape of one layer."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    latent, rope, query_latent = config["kv_lora_rank"], config["qk_rope_head_dim"], config["q_lora_rank"]
    block = f"model.layers.{index}"
    shapes: Shapes = {
        f"{block}.input_layernorm.weight": (hidden,),
        f"{block}.post_attention_layernorm.weight": (hidden,),
        f"{block}.self_attn.q_a_proj.weight": (query_latent, hidden),
        f"{block}.self_attn.q_a_layernorm.weight": (query_latent,),
        f"{block}.self_attn.q_b_proj.weight": (heads * config["qk_head_dim"], query_latent),
        f"{block}.self_attn.kv_a_proj_with_mqa.weight": (latent + rope, hidden),
        f"{block}.self_attn.kv_a_layernorm.weight": (latent,),
        f"{block}.self_attn.kv_b_proj.weight": (
            heads * (config["qk_nope_head_dim"] + config["v_head_dim"]),
            latent,
        ),
        f"{block}.self_attn.o_proj.weight": (hidden, heads * config["v_head_dim"]),
    }
    if index < config["first_k_dense_replace"]:
        return shapes | _mlp_shapes(f"{block}.mlp", hidden, config["intermediate_size"])
    shapes[f"{block}.mlp.gate.weight"] = (config["n_routed_experts"], hidden)
    if config["model_type"] == "deepseek_v3":
        shapes[f"{block}.mlp.gate.e_score_correction_bias"] = (config["n_routed_experts"],)
    inner = config["moe_intermediate_size"]
    for expert in range(config["n_routed_experts"]):
        shapes |= _mlp_shapes(f"{block}.mlp.experts.{expert}", hidden, inner)
    return shapes | _mlp_shapes(f"{block}.mlp.shared_experts", hidden, inner * config["n_shared_experts"])


def _mlp_shapes(prefix: str, hidden: int, inner: int) -> Shapes:
    return {
        f"{prefix}.gate_proj.weight": (inner, hidden),
        f"{prefix}.up_proj.weight": (inner, hidden),
        f"{prefix}.down_proj.weight": (hidden, inner),
    }
