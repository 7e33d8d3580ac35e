"""How many examples went into each step of preparation and how many came out."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.data.step import Finding


@dataclass(frozen=True, slots=True)
class FunnelRow:
    """One step. `removed` and `flagged` are examples, `changed` examples whose text is another one now."""

    step: str
    before: int
    after: int
    changed: int = 0
    flagged: int = 0
    seconds: float = 0.0
    counts: tuple[tuple[str, int], ...] = ()
    """The numbers by the step's own kinds, such as ("mail", 3)."""
    removed_findings: tuple[Finding, ...] = ()
    flagged_findings: tuple[Finding, ...] = ()

    @property
    def removed(self) -> int:
        """Examples that did not go on."""
        return self.before - self.after

    def to_dict(self) -> dict[str, object]:
        """The numbers, ready for JSON; no text of any example."""
        return {
            "step": self.step,
            "before": self.before,
            "after": self.after,
            "removed": self.removed,
            "changed": self.changed,
            "flagged": self.flagged,
            "counts": dict(self.counts),
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, slots=True)
class Funnel:
    """All steps in order."""

    rows: tuple[FunnelRow, ...] = ()

    def row(self, step: str) -> FunnelRow | None:
        """The step of that name; None where it was off."""
        return next((row for row in self.rows if row.step == step), None)

    def to_dicts(self) -> list[dict[str, object]]:
        """One dict per step, ready for JSON."""
        return [row.to_dict() for row in self.rows]
