"""Takes tied embeddings apart where an adapter changed one of them, so that the other keeps its values.

With tied embeddings both ends of the model share one tensor. PEFT adapts one end; merged in place, the change would
reach the other end too, and a model saved as tied forgets it: https://github.com/huggingface/peft/issues/2777
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adapters.errors import MergeError
from adapters.export.collect import mutates_base
from adapters.export.module_names import plain_name


def untie_adapted(model: Any, embeddings: frozenset[str]) -> tuple[str, ...]:
    """Give the output layer a tensor of its own where the PEFT model `model` adapts an embedding.

    `embeddings` are the names of the input and output embedding of a base that ties them. Returns the adapted ones,
    none where nothing was to be done; answers stay what they were. Raises MergeError where the adapter's start
    changed the shared tensor.
    """
    import torch

    adapted = tuple(sorted(name for name in _adapted(model) if name in embeddings))
    if not adapted:
        return ()
    config = model.peft_config[model.active_adapter]
    if mutates_base(config):
        raise MergeError(
            f"{', '.join(adapted)} was adapted with init_lora_weights={config.init_lora_weights!r}, which changed "
            "the tensor that both embeddings of this base share. Train with a plain start, or without that layer."
        )
    base = model.get_base_model()
    output = _inner(base.get_output_embeddings())
    output.weight = torch.nn.Parameter(output.weight.detach().clone(), requires_grad=False)
    base.config.tie_word_embeddings = False
    base.config.get_text_config().tie_word_embeddings = False
    return adapted


def _adapted(model: Any) -> Iterator[str]:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
            yield plain_name(name)


def _inner(module: Any) -> Any:
    """The layer of the base inside PEFT's."""
    if hasattr(module, "get_base_layer"):
        return module.get_base_layer()
    return getattr(module, "original_module", module)
