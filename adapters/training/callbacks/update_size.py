"""How far a step moves the parameters: ||change|| / ||parameters||."""

# ruff: noqa: ARG002 - transformers calls every callback with all arguments by name

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from adapters.training.callbacks.parameters import trained_parameters


class UpdateSize(TrainerCallback):  # type: ignore[misc]
    """Measures the steps that are logged; the others cost nothing."""

    def __init__(self, *, every_steps: int) -> None:
        self.every_steps = every_steps
        self.value: float | None = None
        self._before: list[Any] | None = None

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        """Copy the parameters before a step that will be logged."""
        if (state.global_step + 1) % self.every_steps == 0:
            self._before = [parameter.detach().clone() for _, parameter in trained_parameters(model)]

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        """Compare."""
        if self._before is None:
            return
        import torch

        after = [parameter.detach() for _, parameter in trained_parameters(model)]
        size = torch.nn.utils.get_total_norm(self._before)
        change = torch.nn.utils.get_total_norm([a - b for a, b in zip(after, self._before, strict=True)])
        self.value = (change / size.clamp(min=1e-12)).item()
        self._before = None
