"""The part of a run that counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """The span that is measured, in seconds from the start of the run."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.start

    def holds(self, seconds: float | None) -> bool:
        """Whether a moment lies in it."""
        return seconds is not None and self.start <= seconds < self.end
