"""Exponential moving average of the trained parameters."""

# ruff: noqa: ARG002 - transformers calls every callback with all arguments by name

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import TrainerCallback

from adapters.training.callbacks.parameters import copy_parameters, own_parameters, put_parameters


class Ema(TrainerCallback):  # type: ignore[misc]
    """Keeps shadow = d * shadow + (1 - d) * parameter after every step.

    d rises to `decay` as (1 + n) / (10 + n) over the first steps n, so that the first values, which mean nothing,
    do not stay in the average of a short run (as in TensorFlow's ExponentialMovingAverage).
    """

    state_name = "ema"

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._shadow: dict[str, Any] = {}
        self._num_updates = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        """Start from the parameters as they are, unless a checkpoint gave the average."""
        if not self._shadow:
            self._shadow = {name: value.clone() for name, value in own_parameters(model)}

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        """Take the step into the average."""
        import torch

        self._num_updates += 1
        decay = min(self.decay, (1 + self._num_updates) / (10 + self._num_updates))
        with torch.no_grad():
            for name, value in own_parameters(model):
                self._shadow[name] = self._shadow[name].to(value.device)
                self._shadow[name].lerp_(value, 1.0 - decay)

    @contextmanager
    def applied(self, model: Any) -> Iterator[None]:
        """The model with averaged parameters inside the block, with its own again after it."""
        if not self._shadow:
            yield
            return
        own = copy_parameters(model)
        put_parameters(model, self._shadow)
        try:
            yield
        finally:
            put_parameters(model, own)

    def put_into(self, model: Any) -> bool:
        """Give `model` the average; False before the first step."""
        if not self._shadow:
            return False
        put_parameters(model, self._shadow)
        return True

    def state(self) -> dict[str, Any]:
        return {
            "num_updates": self._num_updates,
            "shadow": {name: value.to("cpu", copy=True) for name, value in self._shadow.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._num_updates, self._shadow = state["num_updates"], state["shadow"]
