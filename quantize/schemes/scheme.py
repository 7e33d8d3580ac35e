"""What a scheme is: how weights and inputs are rounded, and the llm-compressor modifiers that do it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Modifiers = dict[str, dict[str, Any]]
"""Name of a modifier of llm-compressor -> its arguments, in the order in which they run."""


@dataclass(frozen=True, slots=True)
class SchemeOptions:
    """What the user may choose within a scheme."""

    group_size: int | None
    """Inputs that share one scale; None where a scheme has one scale per output."""
    symmetric: bool
    """False: weights have zero points."""
    activation_order: Literal["static", "none"]
    """Whether GPTQ rounds the columns of the largest inputs first."""
    ignore: tuple[str, ...]
    """Modules that stay as they are: names, or patterns after `re:`."""
    scale_dtype: str
    """Number format in which scales of groups are stored, such as torch.bfloat16."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way of making a base smaller."""

    name: str
    summary: str
    weights: str
    """How weights are stored, for people."""
    weight_bits: int
    grouped: bool
    """Whether groups of inputs have a scale of their own, so that a group size is needed."""
    calibrated: bool
    """Whether it looks at calibration text; the others round in one go."""
    modifiers: Callable[[SchemeOptions], Modifiers]
    ordered: bool = False
    """Whether there is an activation order to choose."""
    serving: str = ""
    """What it needs where it is served; empty for nothing special."""

    @property
    def zero_points(self) -> bool:
        """Whether weights may have zero points: what vLLM loads for weight-only integer schemes."""
        return self.grouped
