"""Lower the learning rate when evaluations stop improving."""

# ruff: noqa: ARG002 - transformers calls every callback with all arguments by name

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from adapters.training.callbacks.early_stopping import PERPLEXITY


class Plateau(TrainerCallback):  # type: ignore[misc]
    """The factor of the schedule `plateau`: times `factor` after more than `patience` evaluations without a new
    lowest perplexity. It works on the rate after warm-up, which torch's ReduceLROnPlateau cannot share."""

    state_name = "plateau"

    def __init__(self, *, factor: float, patience: int) -> None:
        self.factor = factor
        self.patience = patience
        self.multiplier = 1.0
        self._best: float | None = None
        self._num_without_gain = 0

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        """Compare with the lowest perplexity so far."""
        perplexity = metrics.get(PERPLEXITY)
        if perplexity is None:
            return
        if self._best is None or perplexity < self._best:
            self._best, self._num_without_gain = perplexity, 0
            return
        self._num_without_gain += 1
        if self._num_without_gain > self.patience:
            self.multiplier *= self.factor
            self._num_without_gain = 0

    def state(self) -> dict[str, Any]:
        return {"multiplier": self.multiplier, "best": self._best, "num_without_gain": self._num_without_gain}

    def restore(self, state: dict[str, Any]) -> None:
        self.multiplier, self._best = state["multiplier"], state["best"]
        self._num_without_gain = state["num_without_gain"]
