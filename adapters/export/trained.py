"""What was trained, reduced to one change per linear module of the served base."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from adapters.errors import ExportError
from adapters.export.factors import Factors
from bases.resolve import ResolvedBase


@dataclass(frozen=True, slots=True)
class ModuleChange:
    """How one module of the served base changed.

    `factors` is the change in low-rank form where there is one. `exact` gives the whole change as a matrix
    (out_features, in_features), to convert it or to measure `factors` by; None where `factors` are exact.
    """

    module: str
    factors: Factors | None
    exact: Callable[[], Any] | None = None

    def matrix(self) -> Any:
        """The whole change (out_features, in_features); raise ValueError for a change that has no form."""
        if self.exact is not None:
            return self.exact()
        if self.factors is not None:
            return self.factors.dense()
        raise ValueError(f"the change of {self.module} has neither factors nor a matrix")


@dataclass(frozen=True, slots=True)
class DeclaredScaling:
    """The `r`, `lora_alpha` and `use_rslora` that hold for every module of a plain LoRA adapter."""

    rank: int
    alpha: float
    rslora: bool


@dataclass(frozen=True, slots=True)
class Trained:
    """Everything that was learned. `notes` say what was done to it so far, as sentences for people."""

    changes: tuple[ModuleChange, ...]
    declared: DeclaredScaling | None = None
    notes: tuple[str, ...] = field(default=())


class ServedBase:
    """The base as it is served, in float32 on the CPU, read when it is first needed."""

    def __init__(self, base: ResolvedBase) -> None:
        self.resolved = base

    @cached_property
    def model(self) -> Any:
        """The model in evaluation mode. A quantised one has its dequantised weights, as in training."""
        import torch

        from adapters.training.base_model import load_training_model

        return load_training_model(self.resolved, dtype=torch.float32).model.eval()

    def parameter(self, name: str) -> Any | None:
        """The parameter of that name, float32 on the CPU; None where the base has none."""
        return self._parameters.get(name)

    def weight(self, module: str) -> Any:
        """The weight of a linear module as (out_features, in_features)."""
        weight = self.parameter(f"{module}.weight")
        if weight is None:
            raise ExportError(
                f"The base {self.resolved.name} has no readable weight for {module}: its quantisation keeps it "
                "in another form. Train with plain LoRA, which needs no weights of the base to be exported."
            )
        return oriented(self.model.get_submodule(module), weight)

    @cached_property
    def _parameters(self) -> dict[str, Any]:
        return {name: value.detach() for name, value in self.model.named_parameters(remove_duplicate=False)}


def on_cpu(tensor: Any) -> Any:
    """`tensor` whole, detached, float32, on the CPU; a float32 one keeps its bits."""
    import torch

    if hasattr(tensor, "full_tensor"):  # a shard of FSDP or tensor parallelism
        tensor = tensor.full_tensor()
    return tensor.detach().to("cpu", torch.float32)


def oriented(layer: Any, weight: Any) -> Any:
    """`weight` of `layer` as (out_features, in_features): GPT-2's Conv1D keeps it the other way round."""
    from transformers.pytorch_utils import Conv1D

    return weight.T if isinstance(layer, Conv1D) else weight
