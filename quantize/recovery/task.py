"""A task adapter that is on top of both bases while the one is brought back to the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.compose.part import read_parts
from adapters.export.factors import Factors
from adapters.published import find_adapter
from adapters.target import TargetBase


@dataclass(frozen=True, slots=True)
class TaskAdapter:
    """`label` is name@digest, short; `factors` are those of each module, scale apart."""

    label: str
    factors: Mapping[str, Factors]


def read_task(text: str, *, target: TargetBase, home: Path) -> TaskAdapter:
    """The adapter that `text` names (a folder or a published name), checked against the original base `target`.

    Raises AdapterNotFoundError, or ExportError with what is wrong with it.
    """
    (part,) = read_parts([find_adapter(text, home=home)], [1.0], target)
    return TaskAdapter(part.label, part.factors)


def merge_into(model: Any, task: TaskAdapter | None) -> None:
    """Add the adapter's changes to the weights of `model`, in place; nothing without one.

    The same as the adapter beside the layer, as long as the layer does not round its inputs.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    with torch.no_grad():
        for module, factors in (task.factors if task else {}).items():
            layer = model.get_submodule(module)
            change = factors.dense().to(layer.weight.dtype)
            layer.weight.add_(change.T if isinstance(layer, Conv1D) else change)
