"""What an export wrote and how near it is to what was trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adapters.export.servable import EXACT_ERROR


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written. Errors are relative (Frobenius norm of the module's change, 0 to 1).

    `trained_difference_nats` is the largest difference of a log probability between the trained model and what
    was written, over the tokens of the first probe cases; it holds the rounding of the training's precision.
    `effect_nats` is the largest difference between adapter and base in the probe.
    """

    folder: Path
    digest: str
    rank: int
    alpha: float
    num_parameters: int
    conversions: tuple[str, ...]
    max_relative_error: float
    module_errors: Mapping[str, float]
    trained_difference_nats: float
    effect_nats: float

    @property
    def is_exact(self) -> bool:
        """Whether nothing but rounding separates what was written from what was trained."""
        return self.max_relative_error <= EXACT_ERROR
