"""When to evaluate and when to save."""

# ruff: noqa: ARG002 - transformers calls every callback with all arguments by name

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from adapters.training.schedule import RunClock


class Cadence(TrainerCallback):  # type: ignore[misc]
    """Evaluates every so many steps, or else at every `parts`-th of the run's progress, and always at its end.

    Saves every so many steps, or else after evaluations, and at the end. Stands after EarlyStopping and TimeBudget
    in the list of callbacks, whose decisions it reads.
    """

    state_name = "cadence"

    def __init__(
        self, clock: RunClock, *, eval_every_steps: int | None, save_every_steps: int | None, evaluates: bool
    ) -> None:
        self.clock = clock
        self.eval_every_steps = eval_every_steps
        self.save_every_steps = save_every_steps
        self.evaluates = evaluates
        self.before: tuple[float, float, float] | None = None
        """(loss, perplexity, token accuracy) before the first step; kept here so that a resumed run knows it."""
        self.finished = False
        self.parts = 4
        self._num_parts = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Set the flags for this step."""
        step = state.global_step
        done = int(self.clock.progress(step) * self.parts)
        passed, self._num_parts = done > self._num_parts, done
        is_last = step >= state.max_steps or control.should_training_stop
        due = step % self.eval_every_steps == 0 if self.eval_every_steps else passed
        control.should_evaluate = self.evaluates and (due or is_last)
        self.finished = is_last
        control.should_log = control.should_log or is_last
        due_to_save = step % self.save_every_steps == 0 if self.save_every_steps else due
        control.should_save = due_to_save or is_last

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """An evaluation that ends the run is its last step too."""
        if control.should_training_stop:
            self.finished = True
            control.should_save = True

    def state(self) -> dict[str, Any]:
        before = None if self.before is None else list(self.before)
        return {
            "parts": self.parts,
            "num_parts": self._num_parts,
            "before": before,
            "finished": self.finished,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.parts, self._num_parts = state["parts"], state["num_parts"]
        self.finished = state["finished"]
        self.before = None if state["before"] is None else tuple(state["before"])
