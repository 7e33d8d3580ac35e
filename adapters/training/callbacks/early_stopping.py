"""Stop when validation perplexity no longer falls by enough."""

# ruff: noqa: ARG002 - transformers calls every callback with all arguments by name

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

PERPLEXITY = "eval_perplexity"


class EarlyStopping(TrainerCallback):  # type: ignore[misc]
    """Stops after `patience` evaluations in a row that are not better by `min_relative_gain` than the reference.

    The reference is the last perplexity that was better by that much: slow progress counts as none, however long
    it goes on. `patience` 0 never stops.
    """

    state_name = "early_stopping"

    def __init__(self, *, patience: int, min_relative_gain: float) -> None:
        self.patience = patience
        self.min_relative_gain = min_relative_gain
        self.reference: float | None = None
        self.num_without_gain = 0
        self.stopped = False

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        """Compare with the reference."""
        perplexity = metrics.get(PERPLEXITY)
        if perplexity is None:
            return
        if self.reference is None or perplexity <= self.reference * (1.0 - self.min_relative_gain):
            self.reference, self.num_without_gain = perplexity, 0
            return
        self.num_without_gain += 1
        if self.patience and self.num_without_gain >= self.patience:
            self.stopped = True
            control.should_training_stop = True

    def state(self) -> dict[str, Any]:
        return {
            "reference": self.reference,
            "num_without_gain": self.num_without_gain,
            "stopped": self.stopped,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.reference, self.num_without_gain = state["reference"], state["num_without_gain"]
        self.stopped = state["stopped"]
