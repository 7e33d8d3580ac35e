"""Counts what goes into a trainer and times its steps, in the same way for every trainer built on transformers'."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback


class CountingCollator:
    """Wraps a data collator and notes tokens and positions of each batch, in order."""

    def __init__(self, collate: Callable[[list[Any]], dict[str, Any]]) -> None:
        self._collate = collate
        self.tokens: list[int] = []
        self.positions: list[int] = []

    def __call__(self, features: list[Any]) -> dict[str, Any]:
        batch = self._collate(features)
        positions = int(batch["input_ids"].numel())
        mask = batch.get("attention_mask")
        self.tokens.append(positions if mask is None else int(mask.sum()))
        self.positions.append(positions)
        return batch


class StepTimer(TrainerCallback):  # type: ignore[misc]
    """Seconds of each optimiser step, forward to update."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._started = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._started = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        _synchronise()
        self.seconds.append(time.perf_counter() - self._started)


def _synchronise() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
