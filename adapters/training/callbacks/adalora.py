"""AdaLoRA's allocation of ranks, driven by the run's progress."""

# ruff: noqa: ARG002 - transformers calls every callback with all arguments by name

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from adapters.training.methods.adalora import CLOCK_TICKS, LAST_TICKS
from adapters.training.schedule import RunClock

_MOMENTS = ("ipt", "exp_avg_ipt", "exp_avg_unc")


class RankAllocation(TrainerCallback):  # type: ignore[misc]
    """Calls PEFT's allocator after every step, with progress in ticks where it expects steps.

    The allocator fixes the ranks at one certain tick, which is not skipped when progress jumps over it.
    """

    state_name = "adalora"

    def __init__(self, clock: RunClock) -> None:
        self.clock = clock
        self._fixed = False
        self._restored: dict[str, Any] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        """Take back what a checkpoint knew."""
        self._model = model
        if self._restored is None:
            return
        allocator = model.base_model.rankallocator
        for name in _MOMENTS:
            setattr(allocator, name, dict(self._restored[name]))
        model.peft_config["default"].rank_pattern = self._restored["rank_pattern"]
        self._restored = None

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        """Weigh the ranks by the gradients, which are still there, and mask the least important."""
        tick = int(self.clock.progress(state.global_step + 1) * CLOCK_TICKS)
        fixing = CLOCK_TICKS - LAST_TICKS
        if not self._fixed and tick >= fixing:
            self._fixed, tick = True, fixing
        elif self._fixed:
            tick = max(tick, fixing + 1)
        model.base_model.update_and_allocate(tick)

    def state(self) -> dict[str, Any]:
        allocator = self._model.base_model.rankallocator
        kept = {name: dict(getattr(allocator, name)) for name in _MOMENTS}
        return {**kept, "rank_pattern": self._model.peft_config["default"].rank_pattern, "fixed": self._fixed}

    def restore(self, state: dict[str, Any]) -> None:
        self._fixed = state["fixed"]
        self._restored = state
