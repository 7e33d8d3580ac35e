"""Curves for TensorBoard."""

# ruff: noqa: ARG002 - transformers calls every callback with all arguments by name

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

# Keys of Trainer's logs and the curve each becomes.
CURVES = {
    "loss": "train/loss",
    "grad_norm": "train/gradient_norm",
    "update_size": "train/update_size",
    "learning_rate": "train/learning_rate",
    "tokens_per_second": "train/tokens_per_second",
    "eval_loss": "validation/loss",
    "eval_perplexity": "validation/perplexity",
    "eval_token_accuracy": "validation/token_accuracy",
}


class TensorBoardMetrics(TrainerCallback):  # type: ignore[misc]
    """Writes the logs into `folder`. A resumed run hides what the killed one wrote after the checkpoint."""

    def __init__(self, folder: Path, *, settings_text: str) -> None:
        self.folder = folder
        self.settings_text = settings_text
        self._writer: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Open the file."""
        if not state.is_world_process_zero:
            return
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(self.folder, purge_step=state.global_step or None)
        if not state.global_step:
            self._writer.add_text("settings", self.settings_text)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """One point per curve."""
        if self._writer is None:
            return
        for key, curve in CURVES.items():
            if key in logs:
                self._writer.add_scalar(curve, logs[key], state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
