"""Which layers of a base are adapted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

_ALL_LINEAR = "all-linear"


def peft_targets(targets: Sequence[str]) -> str | list[str]:
    """PEFT's `target_modules`: its own word for all linear layers but the head, or names."""
    return _ALL_LINEAR if tuple(targets) == (_ALL_LINEAR,) else list(targets)


def target_layers(model: Any, targets: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """(name, layer) of the linear layers that `targets` means, the output head left out."""
    import torch

    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear) or module is head:
            continue
        if tuple(targets) == (_ALL_LINEAR,) or name.rpartition(".")[2] in targets:
            yield name, module
