"""Which linear layers of a base an adapter may have: those that PEFT trains and vLLM serves.

In most families that is every linear layer. Two mechanisms take some away.

Latent attention (MLA). vLLM folds `kv_b_proj` into the products around its latent cache when it loads the base
(`process_weights_after_loading` in vllm/model_executor/layers/attention/mla_attention.py) and calls the layer
itself, in prefills, past its LoRA wrapper (`MLACommonBaseImpl.kv_b_proj` is the layer as it was before wrapping).
An adapter's part on it is dropped without a word.

Stacked experts. transformers 5 keeps the experts of a layer in one tensor, which is no layer. Asked for `up_proj`
(or for `all-linear`), PEFT 0.21 reads the name as transformers 4 did, as the experts', and trains the stacked
tensors (`_convert_peft_config_moe` in peft/utils/transformers_weight_conversion.py); dense and shared layers of
that name are then not trained at all. What comes out is LoRA on bare parameters, which is not served.
"""

from __future__ import annotations

from collections.abc import Iterable

from bases.architecture import ArchitectureFacts

# ModelArchConfigConvertorBase.is_deepseek_mla in vllm/transformers_utils/model_arch_config_convertor.py.
LATENT_ATTENTION = frozenset(
    {
        "axk1",
        "bailing_hybrid",
        "deepseek_v2",
        "deepseek_v3",
        "deepseek_v32",
        "deepseek_v4",
        "glm4_moe_lite",
        "glm_moe_dsa",
        "hy_v4",
        "kimi_k2",
        "kimi_linear",
        "longcat_flash",
        "pangu_ultra_moe",
    }
)
# The values "mixtral" and "qwen2_moe" of _MODEL_TO_CONVERSION_PATTERN in transformers/conversion_mapping.py.
STACKED_EXPERTS = frozenset(
    {
        "afmoe",
        "cohere2_moe",
        "deepseek_v2",
        "deepseek_v3",
        "deepseek_v32",
        "dots1",
        "ernie4_5_moe",
        "exaone_moe",
        "flex_olmo",
        "glm4_moe",
        "glm4_moe_lite",
        "glm4v_moe",
        "glm_moe_dsa",
        "hunyuan_v1_moe",
        "longcat_flash",
        "mellum",
        "minimax",
        "minimax_m2",
        "olmoe",
        "qwen3_moe",
        "qwen3_next",
        "qwen3_omni_moe",
        "qwen3_omni_moe_thinker",
        "solar_open",
    }
)
_EXPERT_NAMES = frozenset({"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"})


def trainable_modules(facts: ArchitectureFacts) -> list[str]:
    """Last name parts of the layers that can be trained and are served, sorted: PEFT's `target_modules`.

    Never "all-linear": PEFT reads that word as more than the linear layers where experts are stacked.
    """
    left_out = left_out_modules(facts)
    return [name for name in facts.linear_suffixes() if name not in left_out]


def left_out_modules(facts: ArchitectureFacts) -> dict[str, str]:
    """Last name part of each linear layer that `trainable_modules` leaves out -> why, for people."""
    reasons = {}
    for name in facts.linear_suffixes():
        if _is_folded(facts.model_type, name):
            reasons[name] = f"vLLM folds {name} into its latent attention and drops an adapter's part on it"
        elif facts.model_type in STACKED_EXPERTS and name in _EXPERT_NAMES:
            reasons[name] = (
                f"PEFT reads {name} as that of the experts, which transformers keeps in stacked tensors; "
                "adapters on those are not served"
            )
    return reasons


def unserved_modules(model_type: str, modules: Iterable[str]) -> frozenset[str]:
    """Those of `modules` (full names) whose adapter vLLM would drop without a word."""
    return frozenset(name for name in modules if _is_folded(model_type, name.rpartition(".")[2]))


def engine_modules(facts: ArchitectureFacts) -> tuple[str, ...] | None:
    """Last name parts of the layers that the engine shall keep adapters for; None for all that it can.

    A list only where there are experts: no adapter that passed the check reaches them, and room for adapters on
    every expert costs more memory than all other layers together.
    """
    if not facts.num_experts:
        return None
    return tuple(name for name in facts.linear_suffixes() if not _is_folded(facts.model_type, name))


def _is_folded(model_type: str, name: str) -> bool:
    return name == "kv_b_proj" and model_type in LATENT_ATTENTION
