"""What one step of data preparation did, in the same form for every step."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.data.example import Example


@dataclass(frozen=True, slots=True)
class Finding:
    """One example that a step removed or flagged, and why.

    `twin` is the example that it repeats, where the step compares examples.
    """

    example: Example
    reason: str
    twin: Example | None = None


@dataclass(frozen=True, slots=True)
class StepResult:
    """Output of a step: what goes on, what was removed, what was only flagged, and how many texts changed.

    `counts` breaks the numbers down by a step's own kinds, such as {"mail": 3, "card": 1}.
    """

    name: str
    kept: tuple[Example, ...]
    removed: tuple[Finding, ...] = ()
    flagged: tuple[Finding, ...] = ()
    changed: int = 0
    counts: tuple[tuple[str, int], ...] = ()
