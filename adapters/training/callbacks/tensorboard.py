"""Curves for TensorBoard."""

# ruff: noqa: ARG002 - transformers calls every callback with all arguments by name

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from adapters.training.callbacks.event_file import EventFile
from bases.disk import why_unwritten

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
    """Writes the logs into `folder`. A resumed run hides what the killed one wrote after the checkpoint.

    Curves are to look at: where they cannot be written, `warn` is told once and training goes on without them.
    """

    def __init__(self, folder: Path, *, settings_text: str, warn: Callable[[str], None]) -> None:
        self.folder = folder
        self.settings_text = settings_text
        self.warn = warn
        self._file: EventFile | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Open the file."""
        if not state.is_world_process_zero:
            return
        with self._given_up_without_room():
            self._file = EventFile(self.folder, purge_step=state.global_step or None)
            if not state.global_step:
                self._file.add_text("settings", self.settings_text)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """One point per curve."""
        if self._file is not None:
            points = {curve: logs[key] for key, curve in CURVES.items() if key in logs}
            with self._given_up_without_room():
                self._file.add_points(points, state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the file."""
        self.close()

    @contextmanager
    def _given_up_without_room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.close()
            self.warn(f"Warning: training goes on without curves in {self.folder}: {why_unwritten(error)}")

    def close(self) -> None:
        """Close the file, after an error too."""
        if self._file is not None:
            self._file.close()
            self._file = None
