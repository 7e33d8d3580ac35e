"""The trained parameters of a model, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def trained_parameters(model: Any) -> Iterator[tuple[str, Any]]:
    """(name, parameter) of what requires gradients, in the model's order."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def own_parameters(model: Any) -> Iterator[tuple[str, Any]]:
    """(name, detached values) of what this process holds of the trained parameters."""
    return ((name, _own(parameter)) for name, parameter in trained_parameters(model))


def copy_parameters(model: Any) -> dict[str, Any]:
    """The trained parameters as detached copies on the CPU; of a sharded model, this process's shards."""
    return {name: value.to("cpu", copy=True) for name, value in own_parameters(model)}


def put_parameters(model: Any, values: Mapping[str, Any]) -> None:
    """Overwrite the trained parameters (shards). Raises KeyError when `values` lacks one of them."""
    import torch

    with torch.no_grad():
        for name, value in own_parameters(model):
            value.copy_(values[name])


def _own(parameter: Any) -> Any:
    """What this process holds of a parameter: all of it, or its shard under FSDP2 or ZeRO-3."""
    if hasattr(parameter, "to_local"):
        return parameter.detach().to_local()
    shard = getattr(parameter, "ds_tensor", None)
    return parameter.detach() if shard is None else shard.detach()
