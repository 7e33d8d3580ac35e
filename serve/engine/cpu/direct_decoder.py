"""A decoder layer of the Llama family as one function that holds its parts.

Defect (vLLM 0.32.0; speed): eager model code reaches each part through `torch.nn.Module.__getattr__` and
`__call__`, a dozen times in a layer, and asks at each activation whether the next layer wants its input quantised:
60 us of Python in a layer, 2 ms of a decode step of 30 layers.

Mend: the same parts in the same order, looked up once. Results are bit for bit those of vLLM. Modules with hooks
keep their way, and so does any class that only resembles vLLM's Llama.

Can go when vLLM replays decode steps on CPUs as it does on GPUs.
Importing this module imports torch and vLLM: only the plugin does, inside vLLM's processes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from vllm.model_executor.layers.fusion.quant_activation import get_input_quant_key
from vllm.model_executor.models.llama import LlamaAttention, LlamaDecoderLayer, LlamaMLP

from serve.engine.cpu import layer_paths

PART = "direct-decoder"


def install() -> None:
    """Shorten the decoder layers of models loaded from now on; again changes nothing."""
    layer_paths.install(PART, shorten)


def shorten(module: Any) -> Callable[..., Any] | None:
    """A forward for a plain Llama layer that calls its parts' present forwards; None for any other module."""
    if type(module) is not LlamaDecoderLayer:
        return None
    attention, mlp = module.self_attn, module.mlp
    if type(attention) is not LlamaAttention or type(mlp) is not LlamaMLP:
        return None
    if get_input_quant_key(mlp.down_proj) is not None or any(_has_hooks(part) for part in module.modules()):
        return None
    pairs = (attention.qkv_proj, attention.o_proj, mlp.gate_up_proj, mlp.down_proj)
    if not all(getattr(linear, "return_bias", True) for linear in pairs):
        return None
    return _forward(module, attention, mlp)


def _has_hooks(module: Any) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _forward(layer: Any, attention: Any, mlp: Any) -> Callable[..., Any]:
    first_norm, second_norm = layer.input_layernorm.forward, layer.post_attention_layernorm.forward
    project, rotate = attention.qkv_proj.forward, attention.rotary_emb.forward
    attend, output = attention.attn.forward, attention.o_proj.forward
    widen, activate, narrow = mlp.gate_up_proj.forward, mlp.act_fn.forward, mlp.down_proj.forward
    sizes = (attention.q_size, attention.kv_size, attention.kv_size)
    split = torch.split_with_sizes

    def forward(positions: Any, hidden_states: Any, residual: Any) -> tuple[Any, Any]:
        if residual is None:
            residual = hidden_states
            hidden_states = first_norm(hidden_states)
        else:
            hidden_states, residual = first_norm(hidden_states, residual)
        qkv, _ = project(hidden_states)
        query, key, value = split(qkv, sizes, -1)
        query, key = rotate(positions, query, key)
        hidden_states, _ = output(attend(query, key, value))
        hidden_states, residual = second_norm(hidden_states, residual)
        hidden_states, _ = widen(hidden_states)
        hidden_states, _ = narrow(activate(hidden_states))
        return hidden_states, residual

    return forward
