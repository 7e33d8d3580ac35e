"""Causal attention over samples that lie end to end in one row, without padding, mask or contamination.

Registered in transformers under `IMPLEMENTATION`; batches without `cu_seq_lens_q` are passed on to its "sdpa".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from adapters.errors import TrainingError
from adapters.training.attention_blocks import attend_in_blocks
from adapters.training.shared_prefix import expand_row

IMPLEMENTATION = "hotswap_packed"
_MAX_FLASH_HEAD_SIZE = 256
_REFUSED = ("softcap", "s_aux", "position_bias")


def register() -> None:
    """Make `IMPLEMENTATION` known to transformers; again is no harm."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(IMPLEMENTATION, packed_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, packed_mask)


def packed_mask(*, mask_function: Any, **arguments: Any) -> Any:
    """transformers' mask for "sdpa", but an empty one for a packed row, which needs none."""
    from transformers.masking_utils import sdpa_mask

    if _keeps_samples_apart(mask_function):
        return torch.empty((1, 1, 0, 0), dtype=torch.bool, device=arguments.get("device"))
    return sdpa_mask(mask_function=mask_function, **arguments)


def packed_attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Any, None]:
    """Attention of transformers' interface: query [B, H, T, D], key and value [B, H_kv, T, D] -> [B, T, H, D_v].

    A real mask, as sliding windows and padding have, is obeyed and used as "sdpa" would. Raises TrainingError for
    attention that has no packed form here.
    """
    bounds, packed_tokens = kwargs.get("cu_seq_lens_q"), kwargs.get("packed_tokens")
    is_unmasked = attention_mask is None or attention_mask.numel() == 0
    if bounds is None or not is_unmasked:
        if attention_mask is not None and is_unmasked:
            raise TrainingError(
                "Position ids start anew within a row, but cu_seq_lens_q was not passed on to the attention "
                "layers; train with padded batches."
            )
        if packed_tokens is not None:
            raise TrainingError(
                "A layer with a mask of its own cannot take rows whose beginnings are shared."
            )
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        output: tuple[Any, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, **kwargs
        )
        return output
    refused = [name for name in _REFUSED if kwargs.get(name) is not None]
    is_causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    shapes = f"causal: {is_causal}, query {tuple(query.shape)}, key {tuple(key.shape)}"
    if refused or not is_causal or query.shape[0] != 1 or query.shape[2] != key.shape[2]:
        raise TrainingError(
            f"Attention of {type(module).__name__} cannot be packed ({', '.join(refused) or shapes}); "
            "train with padded batches."
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    value_size = value.shape[-1]
    # Kernels want one head size for all three; zeros change no product.
    query, key, value = _pad_heads(query, key, value)
    if packed_tokens is not None:
        query, key, value = (
            expand_row(x[0].transpose(0, 1), packed_tokens).transpose(0, 1)[None] for x in (query, key, value)
        )
    if dropout == 0.0 and _has_varlen_kernel(query):
        output_row = _varlen(query, key, value, bounds, kwargs.get("max_length_q"), scale)
    else:
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
        output_row = attend_in_blocks(q, k, v, bounds, scale=scale, dropout=dropout)
    if packed_tokens is not None:
        output_row = output_row.index_select(0, kwargs["packed_places"])
    return output_row[..., :value_size][None], None


def obstacle_to_packing(model: Any) -> str | None:
    """Why a model's samples cannot be packed, or None: what its configuration tells. See also `contamination`."""
    config = model.config.get_text_config()
    if not getattr(model, "_supports_attention_backend", False) and not model._can_set_attn_implementation():
        return f"the attention of {type(model).__name__} does not go through transformers' interface"
    if getattr(config, "attn_logit_softcapping", None) is not None:
        return "its attention caps logits (softcap)"
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if kinds:
        return f"it has layers that are not plain attention: {', '.join(sorted(kinds))}"
    if any(name.endswith(".sinks") for name, _ in model.named_parameters()):
        return "its attention has sinks"
    return None


def contamination(model: Any, first: Sequence[int], other: Sequence[int], second: Sequence[int]) -> float:
    """How far the hidden states of `second` move when the sample before it in the row is another, as a share of
    their largest value: 0, or rounding in a model with experts, unless samples see each other.

    `first` and `other` are different samples of the same length.
    """
    rows = [_states(model, [before, second], shared=False)[len(before) :] for before in (first, other)]
    return float((rows[0] - rows[1]).abs().max() / rows[0].abs().max())


def sharing_error(model: Any, sample: Sequence[int]) -> float:
    """How far the hidden states of a sample move when it takes over its first half from another, as a share of
    their largest value: rounding, unless the model does not look at shared beginnings. At least four tokens.
    """
    half = len(sample) // 2
    alone = _states(model, [sample], shared=False)
    both = _states(model, [sample[: half + 1], sample], shared=True)
    return float((both[half + 1 :] - alone[half:]).abs().max() / alone.abs().max())


def _states(model: Any, samples: Sequence[Sequence[int]], *, shared: bool) -> Any:
    """The last hidden states [T, hidden] of a row of samples of which the last token is learned, in float32."""
    from adapters.data.encode import EncodedExample
    from adapters.data.example import Origin
    from adapters.training.collate import PackedCollator

    examples = [
        EncodedExample(tuple(ids), (*(False,) * (len(ids) - 1), True), "", Origin("", 0)) for ids in samples
    ]
    batch = PackedCollator(share_prefixes=shared)(examples)
    batch.pop("labels")
    batch = {k: v.to(model.device) if hasattr(v, "to") else v for k, v in batch.items()}
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            output = model(**batch, output_hidden_states=True, use_cache=False)
    finally:
        model.train(was_training)
    return output.hidden_states[-1][0].float()


def _keeps_samples_apart(mask_function: Any) -> bool:
    """Whether a mask is causal and block-diagonal and no more: `and_masks(causal, packed)` of transformers.

    A function of any other form gets its mask built, which is slower and right.
    """
    parts = [
        part.__qualname__
        for cell in getattr(mask_function, "__closure__", None) or ()
        if isinstance(cell.cell_contents, tuple)
        for part in cell.cell_contents
    ]
    return parts == ["causal_mask_function", "packed_sequence_mask_function.<locals>.inner_mask"]


def _pad_heads(query: Any, key: Any, value: Any) -> tuple[Any, Any, Any]:
    size = max(query.shape[-1], value.shape[-1])
    if query.is_cuda:
        size = -(-size // 8) * 8  # what the flash kernel wants
    if query.shape[-1] == value.shape[-1] == size:
        return query, key, value
    pad = torch.nn.functional.pad
    return tuple(pad(x, (0, size - x.shape[-1])) for x in (query, key, value))


def _has_varlen_kernel(query: Any) -> bool:
    """Whether torch's flash attention takes rows as they are: half precision on a GPU from Ampere on."""
    if not query.is_cuda or query.shape[-1] > _MAX_FLASH_HEAD_SIZE:
        return False
    if query.dtype == torch.float32 and not torch.is_autocast_enabled("cuda"):
        return False
    return torch.version.hip is None and torch.cuda.get_device_capability(query.device) >= (8, 0)


def _varlen(query: Any, key: Any, value: Any, bounds: Any, longest: int | None, scale: float) -> Any:
    """[1, H, T, D] -> [T, H, D], one kernel for all samples."""
    from torch.nn.attention.varlen import varlen_attn

    rows = [x[0].transpose(0, 1) for x in (query, key, value)]
    if rows[0].dtype == torch.float32:
        rows = [x.to(torch.get_autocast_dtype("cuda")) for x in rows]
    if longest is None:
        longest = int(bounds.diff().max())
    return varlen_attn(
        *rows,
        bounds,
        bounds,
        longest,
        longest,
        scale=scale,
        window_size=(-1, 0),  # causal
        enable_gqa=rows[0].shape[1] != rows[1].shape[1],
    )
