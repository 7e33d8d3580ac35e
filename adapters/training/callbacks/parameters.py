"""The trained parameters of a model, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def trained_parameters(model: Any) -> Iterator[tuple[str, Any]]:
    """(name, parameter) of what requires gradients, in the model's order."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def copy_parameters(model: Any) -> dict[str, Any]:
    """The trained parameters as detached copies on the CPU."""
    return {name: parameter.detach().to("cpu", copy=True) for name, parameter in trained_parameters(model)}


def put_parameters(model: Any, values: Mapping[str, Any]) -> None:
    """Overwrite the trained parameters. Raises KeyError when `values` lacks one of them."""
    import torch

    with torch.no_grad():
        for name, parameter in trained_parameters(model):
            parameter.copy_(values[name])
