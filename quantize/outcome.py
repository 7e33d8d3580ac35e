"""What a run made and measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from quantize.calibration.calibration_set import CalibrationStats
from quantize.quality.figures import QualityFigures
from quantize.recovery.outcome import RecoveryOutcome


@dataclass(frozen=True, slots=True)
class QuantizeOutcome:
    """A quantised base, complete and in its place."""

    folder: Path
    scheme: str
    bytes_before: int
    """Of the original's weight files, as they are stored."""
    bytes_after: int
    quality: QualityFigures
    calibration: CalibrationStats | None
    """None for a scheme that looks at no text."""
    recovery: RecoveryOutcome | None
    layout_folder: Path | None
    """The same numbers in the GPTQ layout, where that was asked for."""
    layers_taken_over: int
    """Layers that an interrupted run had finished."""
    seconds: float
    notes: tuple[str, ...]
