"""The run's clock: read after every step, kept in checkpoints, ends the run when time is up."""

# ruff: noqa: ARG002 - transformers calls every callback with all arguments by name

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from adapters.training.processes import from_first_process
from adapters.training.schedule import RunClock


class TimeBudget(TrainerCallback):  # type: ignore[misc]
    """Reads the clock once per step, so that the schedule and the decision to stop see the same time.

    With several processes the first one's clock counts: all must stop at the same step.
    """

    state_name = "clock"

    def __init__(self, clock: RunClock) -> None:
        self.clock = clock

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start counting."""
        self.clock.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Read the clock; stop when the time is used up."""
        self.clock.read()
        if self.clock.budget_seconds is not None:
            self.clock.elapsed_seconds = from_first_process(self.clock.elapsed_seconds, args)
        if self.clock.is_over():
            control.should_training_stop = True

    def state(self) -> dict[str, Any]:
        return {"elapsed_seconds": self.clock.elapsed_seconds}

    def restore(self, state: dict[str, Any]) -> None:
        self.clock.before_seconds = state["elapsed_seconds"]
        self.clock.elapsed_seconds = state["elapsed_seconds"]
