"""Percentiles, and comparisons of two series that were measured in pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of a few values and how far they lie apart."""

    median: float
    low: float
    high: float
    count: int


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie, linear between neighbours.

    Raises ValueError for no values or a share outside [0, 1].
    """
    if not values:
        raise ValueError("no values, so no percentile")
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"a share of {share} is not between 0 and 1")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def spread(values: Sequence[float]) -> Spread:
    """Median, least, greatest and number. Raises ValueError for no values."""
    return Spread(percentile(values, 0.5), min(values), max(values), len(values))


def paired_ratios(ours: Mapping[int, float], theirs: Mapping[int, float]) -> list[float]:
    """ours / theirs for each round that has both, in order of rounds. A round of theirs with 0 is left out."""
    return [ours[number] / theirs[number] for number in sorted(ours) if theirs.get(number)]


def paired_differences(ours: Mapping[int, float], theirs: Mapping[int, float]) -> list[float]:
    """ours - theirs for each round that has both, in order of rounds."""
    return [ours[number] - theirs[number] for number in sorted(ours) if number in theirs]
