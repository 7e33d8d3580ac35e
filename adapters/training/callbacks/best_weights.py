"""Keep the weights of the evaluation with the lowest perplexity."""

# ruff: noqa: ARG002 - transformers calls every callback with all arguments by name

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from adapters.training.callbacks.early_stopping import PERPLEXITY
from adapters.training.callbacks.parameters import copy_parameters, put_parameters


class BestWeights(TrainerCallback):  # type: ignore[misc]
    """A copy, in main memory, of the trained parameters as they were evaluated best (averaged ones with EMA)."""

    state_name = "best_weights"

    def __init__(self) -> None:
        self.perplexity: float | None = None
        self.step = 0
        self.score: tuple[float, float, float] | None = None
        """(loss, perplexity, token accuracy) of the evaluation."""
        self._values: dict[str, Any] = {}

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float], model: Any, **_: Any
    ) -> None:
        """Copy the parameters if this is the best so far."""
        perplexity = metrics.get(PERPLEXITY)
        if perplexity is None or (self.perplexity is not None and perplexity >= self.perplexity):
            return
        self.perplexity, self.step = perplexity, state.global_step
        self.score = (metrics["eval_loss"], perplexity, metrics["eval_token_accuracy"])
        self._values = copy_parameters(model)

    def put_into(self, model: Any) -> bool:
        """Give `model` the best parameters; False when nothing was evaluated."""
        if not self._values:
            return False
        put_parameters(model, self._values)
        return True

    def state(self) -> dict[str, Any]:
        return {
            "perplexity": self.perplexity,
            "step": self.step,
            "score": None if self.score is None else list(self.score),
            "values": self._values,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.perplexity, self.step, self._values = state["perplexity"], state["step"], state["values"]
        self.score = None if state["score"] is None else tuple(state["score"])
