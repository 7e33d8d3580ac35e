"""What a merge made and how near it is to base and adapter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapters.export.fidelity import Fidelity


@dataclass(frozen=True, slots=True)
class MergeReport:
    """`difference_nats` is the largest of any log probability, `effect_nats` what the adapter moves one by at most.

    `weight_bytes` is the size of the written weights. `notes` are sentences for people.
    """

    folder: Path
    adapter: str
    base: str
    dtype: str
    weight_bytes: int
    difference_nats: float
    effect_nats: float
    fidelity: Fidelity
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report for a terminal."""
        return [
            f"{self.folder} is {self.base} with {self.adapter} merged in: {self.dtype}, "
            f"{self.weight_bytes / 1e6:.0f} MB",
            *(f"- {note}" for note in self.notes),
            f"Log probabilities differ from base and adapter by at most {self.difference_nats:.1e} nats where the "
            f"adapter moves them by up to {self.effect_nats:.2f}; {self.fidelity.num_equal} of "
            f"{self.fidelity.num_prompts} greedy answers are equal"
            + (f", {self.fidelity.num_ties} part at a tie." if self.fidelity.num_ties else "."),
        ]
