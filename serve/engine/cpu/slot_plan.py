"""How the rows of one step are grouped by adapter slot; worked out once, used by every layer of the step.

Long runs of neighbouring rows with one slot (prompts) become segments: views, no copies. All other rows are
gathered in the order of their slots and form groups: a group covers neighbouring slots with the same (padded)
number of rows each, so that one batched product serves them all. Base rows (-1) are in neither.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# A run of this many rows is worth a product of its own: a batched one gains nothing from there on.
MIN_SEGMENT_ROWS = 32
# One more product costs about as much as this many padded rows in a batched one.
PRODUCT_COST_ROWS = 16


@dataclass(frozen=True, slots=True)
class Segment:
    """Neighbouring rows that share a slot."""

    slot: int
    first_row: int
    num_rows: int


@dataclass(frozen=True, slots=True)
class SlotGroup:
    """Neighbouring slots with `rows_per_slot` gathered rows each, padding included."""

    first_slot: int
    num_slots: int
    rows_per_slot: int

    @property
    def num_rows(self) -> int:
        return self.num_slots * self.rows_per_slot


@dataclass(frozen=True, slots=True)
class SlotPlan:
    """The grouping of `num_rows` rows; the index tensors are int64."""

    num_rows: int
    slots: tuple[int, ...]  # those in use, ascending
    segments: tuple[Segment, ...]
    groups: tuple[SlotGroup, ...]
    gathered_rows: torch.Tensor  # (sum of the groups' rows,): row of x for each gathered row
    loose_rows: torch.Tensor  # (n,): the rows that the groups serve, ascending
    positions: torch.Tensor  # (n,): where in the gathered rows each loose row is
    all_positions: torch.Tensor | None  # (num_rows,): same for every row, one past the end for the others


def plan_rows(slots: list[int]) -> SlotPlan:
    """Plan for one slot per row, -1 for the base model."""
    import torch

    segments: list[Segment] = []
    loose: dict[int, list[int]] = defaultdict(list)
    row = 0
    for slot, run in groupby(slots):
        length = sum(1 for _ in run)
        if slot >= 0 and (length >= MIN_SEGMENT_ROWS or length == len(slots)):
            segments.append(Segment(slot, row, length))
        elif slot >= 0:
            loose[slot].extend(range(row, row + length))
        row += length

    groups = _group_slots({slot: len(rows) for slot, rows in loose.items()})
    gathered: list[int] = []
    position_of: dict[int, int] = {}
    for group in groups:
        for slot in range(group.first_slot, group.first_slot + group.num_slots):
            rows = loose.get(slot, [])
            position_of.update((r, len(gathered) + i) for i, r in enumerate(rows))
            gathered.extend(rows)
            gathered.extend([0] * (group.rows_per_slot - len(rows)))
    loose_rows = sorted(position_of)
    # Adding to every row is cheaper than scattering to some, unless they are few.
    all_positions = None
    if loose_rows and len(slots) <= 4 * len(loose_rows):
        all_positions = torch.tensor([position_of.get(r, len(gathered)) for r in range(len(slots))])
    return SlotPlan(
        num_rows=len(slots),
        slots=tuple(sorted({slot for slot in slots if slot >= 0})),
        segments=tuple(segments),
        groups=groups,
        gathered_rows=torch.tensor(gathered, dtype=torch.int64),
        loose_rows=torch.tensor(loose_rows, dtype=torch.int64),
        positions=torch.tensor([position_of[r] for r in loose_rows], dtype=torch.int64),
        all_positions=all_positions,
    )


def _group_slots(num_rows_of: dict[int, int]) -> tuple[SlotGroup, ...]:
    """Cover the slots by groups so that padding costs less than the products it saves."""
    groups: list[SlotGroup] = []
    for slot in sorted(num_rows_of):
        num_rows = num_rows_of[slot]
        if groups:
            last = groups[-1]
            rows_per_slot = max(last.rows_per_slot, num_rows)
            merged = SlotGroup(last.first_slot, slot - last.first_slot + 1, rows_per_slot)
            if merged.num_rows <= last.num_rows + num_rows + PRODUCT_COST_ROWS:
                groups[-1] = merged
                continue
        groups.append(SlotGroup(slot, 1, num_rows))
    return tuple(groups)
