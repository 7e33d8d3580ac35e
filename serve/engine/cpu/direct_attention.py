"""Attention and rotation of a decoder layer in four calls.

Defect (vLLM 0.32.0, CPU; speed): `Attention.forward` (vllm/model_executor/layers/attention/attention.py) goes
through two operators registered from Python, so that a compiler cannot look inside. Without a compiler, which with
adapters there never is on a CPU, each layer pays for two dispatches, looks its own name up three times in the
step's context and cuts the KV cache into keys and values twice. `RotaryEmbedding` goes through four functions to
its kernel.

Mend: the same kernels with the same arguments, called directly; the halves of the KV cache are kept. Results are
bit for bit those of vLLM.

Can go when vLLM calls its CPU attention directly in eager mode.
Importing this module imports torch and vLLM: only the plugin does, inside vLLM's processes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from vllm import forward_context
from vllm.distributed.kv_transfer import has_kv_transfer_group
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding
from vllm.v1.attention.backend import AttentionType
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackendImpl

from serve.engine.cpu import layer_paths


def install() -> None:
    """Shorten attention and rotation of models loaded from now on; again changes nothing."""
    layer_paths.install("direct-attention", shorten)


def shorten(module: Any) -> Callable[..., Any] | None:
    """A forward for a decoder's attention or its rotary embedding; None for any other module."""
    if type(module) is Attention:
        return _attention(module) if _is_plain(module) else None
    if isinstance(module, RotaryEmbedding):
        is_plain = type(module).forward_cpu is RotaryEmbedding.forward_cpu
        return _rotation(module) if is_plain and module._forward_method == module.forward_cpu else None
    return None


def _is_plain(layer: Any) -> bool:
    impl = layer.impl
    return (
        type(impl) is CPUAttentionBackendImpl
        and layer.attn_type == AttentionType.DECODER
        and layer.kv_sharing_target_layer_name is None
        and layer.query_quant is None
        and not layer.attn_backend.forward_includes_kv_cache_update
        and not impl.is_fp8_kv_cache
        and impl.sinks is None
        and layer.head_size == layer.head_size_v
    )


def _attention(layer: Any) -> Callable[..., Any]:
    store = torch.ops._C.cpu_attn_reshape_and_cache.default
    attend = torch.ops._C.cpu_attention_with_kv_cache.default
    empty = torch.empty
    impl, name = layer.impl, layer.layer_name
    query_shape = (-1, layer.num_heads, layer.head_size)
    key_shape = (-1, layer.num_kv_heads, layer.head_size)
    width = layer.num_heads * layer.head_size
    before = layer.forward
    cache: Any = None  # the KV cache that keys and values are cut from; vLLM binds it after loading
    keys: Any = None
    values: Any = None

    def forward(query: Any, key: Any, value: Any, output_shape: Any = None, output_dtype: Any = None) -> Any:
        nonlocal cache, keys, values
        context = forward_context._forward_context
        step = _of_layer(context, name)
        if (
            step is None
            or key is None
            or value is None
            or output_shape is not None
            or output_dtype is not None
            or query.shape[0] != step.num_actual_tokens
            or has_kv_transfer_group()
        ):
            return before(query, key, value, output_shape, output_dtype)
        if cache is not layer.kv_cache:
            cache = layer.kv_cache
            blocks, heads, block_size, _ = cache.size()
            keys, values = cache.view((blocks, heads, block_size * 2, -1)).chunk(2, dim=2)
        k_scale, v_scale, dtype = layer._k_scale_float, layer._v_scale_float, impl.kv_cache_dtype
        store(
            key.view(key_shape),
            value.view(key_shape),
            keys,
            values,
            context.slot_mapping[name],
            layer.isa,
            k_scale,
            v_scale,
            dtype,
        )
        output = empty((query.shape[0], width), dtype=query.dtype)
        attend(
            query.view(query_shape),
            keys,
            values,
            output.view(query_shape),
            step.query_start_loc,
            step.seq_lens,
            impl.scale,
            step.causal,
            impl.alibi_slopes,
            impl.sliding_window,
            step.block_table,
            impl.logits_soft_cap,
            step.scheduler_metadata,
            None,
            step.dynamic_causal,
            k_scale,
            v_scale,
            dtype,
        )
        return output

    return forward


def _of_layer(context: Any, name: str) -> Any:
    """The layer's part of the step's attention metadata; None while vLLM warms up, or splits the batch."""
    if context is None or type(context.attn_metadata) is not dict or type(context.slot_mapping) is not dict:
        return None
    return context.attn_metadata.get(name) if context.slot_mapping.get(name) is not None else None


def _rotation(module: Any) -> Callable[..., Any]:
    rotate = torch.ops._C.rotary_embedding.default
    buffers = module._buffers
    head_size, is_neox_style = module.head_size, module.is_neox_style
    before = module.forward

    def forward(positions: Any, query: Any, key: Any = None) -> Any:
        table = buffers["cos_sin_cache"]
        # Other dimensions are for the part `rotary` to judge; another type is converted once, by vLLM.
        if query.dim() != 2 or key is None or table.dtype != query.dtype:
            return before(positions, query, key)
        rotate(positions, query, key, head_size, table, is_neox_style)
        return query, key

    return forward
