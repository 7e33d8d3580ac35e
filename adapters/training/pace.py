"""How fast a training run is: tokens and seconds, in the log and over the whole run."""

from __future__ import annotations

import time
from typing import Any

import torch


class Pace:
    """Tokens per second between two points of the log, evaluations left out."""

    state_name = "pace"

    def __init__(self) -> None:
        self._num_tokens = 0
        self.total_tokens = 0
        self.total_seconds = 0.0
        self._since = time.monotonic()

    def start(self) -> None:
        """Count from here."""
        self._since = time.monotonic()

    def count(self, inputs: dict[str, Any]) -> None:
        """Add the tokens of a batch."""
        self._num_tokens += _num_tokens(inputs)

    def leave_out(self, seconds: float) -> None:
        """Do not count so many seconds of those that have passed."""
        self._since += seconds

    def take(self, accelerator: Any, args: Any) -> float:
        """Tokens per second of all processes since the last call."""
        tokens = float(self._num_tokens)
        if args.world_size > 1:
            mine = torch.tensor(tokens, dtype=torch.float64, device=args.device)
            tokens = accelerator.reduce(mine, "sum").item()
        now = time.monotonic()
        seconds, self._since = max(now - self._since, 1e-9), now
        self._num_tokens = 0
        self.total_tokens += int(tokens)
        self.total_seconds += seconds
        return tokens / seconds

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"total_tokens": self.total_tokens, "total_seconds": self.total_seconds}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's `state`."""
        self.total_tokens, self.total_seconds = state["total_tokens"], state["total_seconds"]


def _num_tokens(inputs: dict[str, Any]) -> int:
    """Tokens of a batch's examples, without padding; what they share counts for each of them."""
    if "packed_tokens" in inputs:
        return int(inputs["packed_tokens"].numel())
    mask = inputs.get("attention_mask")
    return int(inputs["input_ids"].numel() if mask is None else mask.sum())
