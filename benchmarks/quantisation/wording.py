"""Figures as text, the same in Markdown and HTML."""

from __future__ import annotations

from benchmarks.quantisation.figures import Measured
from quantize.quality.figures import Figure

NONE = "-"
MIB = 1024**2


def mib(value: float | None) -> str:
    """Bytes as MiB."""
    return NONE if value is None else f"{value / MIB:.0f}"


def times(value: float | None, *, digits: int = 2) -> str:
    """A ratio, such as 0.25x."""
    return NONE if value is None else f"{value:.{digits}f}x"


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """ours / theirs, where both are known and theirs is not 0."""
    return ours / theirs if ours is not None and theirs else None


def percent(value: float | None, *, digits: int = 1, signed: bool = False) -> str:
    """A share in per cent."""
    if value is None:
        return NONE
    return f"{100 * value:{'+' if signed else ''}.{digits}f} %"


def milliseconds(value: float | None) -> str:
    """Seconds as ms."""
    return NONE if value is None else f"{1000 * value:.0f}"


def spread(value: Measured | Figure | None, form: str = "{:.1f}", *, scale: float = 1.0) -> str:
    """`middle (low to high)`, or the middle alone where there is no spread."""
    if value is None:
        return NONE
    middle = form.format(scale * value.value)
    if value.low is None or value.high is None:
        return middle
    return f"{middle} ({form.format(scale * value.low)} to {form.format(scale * value.high)})"
