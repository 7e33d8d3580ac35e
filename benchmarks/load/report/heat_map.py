"""Adapters by time: how each was served in each few seconds of a run, in the colours of a scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.inline_svg import INK
from benchmarks.load.client.record import Record
from benchmarks.load.report.heat_scales import HeatScale

MOST_ADAPTERS = 64
_MOST_COLUMNS = 60
_STEPS_SECONDS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)


@dataclass(frozen=True, slots=True)
class HeatMap:
    """`levels[adapter][column]`: place in the scale; None: nothing to show."""

    scale: HeatScale
    adapters: tuple[str, ...]
    step_seconds: float
    levels: tuple[tuple[int | None, ...], ...]


def heat_map(records: Sequence[Record], end_seconds: float, scale: HeatScale) -> HeatMap | None:
    """Levels of the requests due in each cell; None for fewer than two adapters.

    Columns are of 1 to 5 s, longer for runs of more than five minutes. The adapters that were asked most come
    first, 64 at most; `base` is the base.
    """
    step = next((one for one in _STEPS_SECONDS if end_seconds / one <= _MOST_COLUMNS), _STEPS_SECONDS[-1])
    columns = max(1, int(-(-end_seconds // step)))
    cells: dict[str, list[list[Record]]] = {}
    for record in records:
        place = int(record.scheduled_seconds // step)
        if record.outcome != "cancelled" and 0 <= place < columns:
            row = cells.setdefault(record.adapter or "base", [[] for _ in range(columns)])
            row[place].append(record)
    if len(cells) < 2:
        return None
    names = sorted(cells, key=lambda name: (-sum(map(len, cells[name])), name))[:MOST_ADAPTERS]
    levels = tuple(tuple(scale.level(cell) if cell else None for cell in cells[name]) for name in names)
    return HeatMap(scale, tuple(names), step, levels)


def fill_heat_map(axes: Any, found: HeatMap, *, window: Mapping[str, float]) -> None:
    """One shape for each colour, so that a map of many cells stays small."""
    from matplotlib.patches import Patch, PathPatch
    from matplotlib.path import Path

    rows = len(found.adapters)
    axes.figure.set_size_inches(6.0, 1.3 + max(4, rows) * (0.24 if rows <= 24 else 0.17))
    used = []
    for level, colour in enumerate(found.scale.colours):
        boxes = [
            _box(start * found.step_seconds, row, (end - start) * found.step_seconds)
            for row, levels in enumerate(found.levels)
            for start, end in _stretches(levels, level)
        ]
        if boxes:
            path = Path.make_compound_path(*(Path(box, closed=True) for box in boxes))
            axes.add_patch(PathPatch(path, facecolor=colour, linewidth=0))
            used.append(Patch(facecolor=colour, label=found.scale.labels[level]))
    for edge in (window["start"], window["end"]):
        axes.axvline(edge, color=INK, linewidth=0.8, linestyle=":")
    axes.set_xlim(0, len(found.levels[0]) * found.step_seconds)
    axes.set_ylim(rows - 0.5, -0.5)
    size = 9 if rows <= 24 else 8
    axes.set_yticks(range(rows), [_short(name) for name in found.adapters], fontsize=size)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"seconds, in cells of {found.step_seconds:g} s")
    axes.figure.legend(
        handles=used, loc="outside upper center", ncols=4, frameon=False, fontsize=8, handlelength=1.2
    )


def _stretches(levels: Sequence[int | None], wanted: int) -> list[tuple[int, int]]:
    """(first, one after the last) of each run of cells at one level."""
    found, start = [], None
    for place, level in enumerate([*levels, None]):
        if level == wanted and start is None:
            start = place
        elif level != wanted and start is not None:
            found.append((start, place))
            start = None
    return found


def _box(x: float, row: int, width: float) -> list[tuple[float, float]]:
    low, high = row - 0.44, row + 0.44
    return [(x, low), (x + width, low), (x + width, high), (x, high), (x, low)]


def _short(name: str) -> str:
    return name if len(name) <= 18 else name[:17] + "…"
