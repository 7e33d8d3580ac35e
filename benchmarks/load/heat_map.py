"""Adapters by time: how soon each was answered, against the limit, in each few seconds of a run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.inline_svg import INK
from benchmarks.load.record import Record

MOST_ADAPTERS = 64
_MOST_COLUMNS = 60
_STEPS_SECONDS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)
# Up to this share of the limit for TTFT -> colour; blue within it, orange beyond, told by lightness too.
_LEVELS: tuple[tuple[float, str], ...] = (
    (0.25, "#c6dbef"),
    (0.5, "#6baed6"),
    (1.0, "#2171b5"),
    (2.0, "#fdae6b"),
    (4.0, "#e6550d"),
    (float("inf"), "#a63603"),
)
_NONE = len(_LEVELS)  # asked, and nothing was answered


@dataclass(frozen=True, slots=True)
class HeatMap:
    """`levels[adapter][column]`: place in the scale; None: it was not asked."""

    adapters: tuple[str, ...]
    step_seconds: float
    levels: tuple[tuple[int | None, ...], ...]


def heat_map(records: Sequence[Record], end_seconds: float, ttft_limit_seconds: float) -> HeatMap | None:
    """The median TTFT of requests due in each cell, as a level of the limit; None for fewer than two adapters.

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
    levels = tuple(tuple(_level(cell, ttft_limit_seconds) for cell in cells[name]) for name in names)
    return HeatMap(tuple(names), step, levels)


def _level(cell: Sequence[Record], limit_seconds: float) -> int | None:
    if not cell:
        return None
    # Without a stream there is no first text: the whole answer stands for it.
    times = [record.ttft_seconds or record.e2e_seconds for record in cell if record.ok]
    known = [seconds for seconds in times if seconds is not None]
    if not known:
        return _NONE
    share = statistics.median(known) / limit_seconds
    return next(place for place, (most, _) in enumerate(_LEVELS) if share <= most)


def fill_heat_map(axes: Any, found: HeatMap, *, limit_seconds: float, window: Mapping[str, float]) -> None:
    """One shape for each colour, so that a map of many cells stays small."""
    from matplotlib.patches import Patch, PathPatch
    from matplotlib.path import Path

    rows = len(found.adapters)
    axes.figure.set_size_inches(6.0, 1.3 + max(4, rows) * (0.24 if rows <= 24 else 0.17))
    colours = [*(colour for _, colour in _LEVELS), INK]
    used = []
    for level, colour in enumerate(colours):
        boxes = [
            _box(start * found.step_seconds, row, (end - start) * found.step_seconds)
            for row, levels in enumerate(found.levels)
            for start, end in _stretches(levels, level)
        ]
        if boxes:
            path = Path.make_compound_path(*(Path(box, closed=True) for box in boxes))
            axes.add_patch(PathPatch(path, facecolor=colour, linewidth=0))
            used.append(level)
    for edge in (window["start"], window["end"]):
        axes.axvline(edge, color=INK, linewidth=0.8, linestyle=":")
    axes.set_xlim(0, len(found.levels[0]) * found.step_seconds)
    axes.set_ylim(rows - 0.5, -0.5)
    size = 9 if rows <= 24 else 8
    axes.set_yticks(range(rows), [_short(name) for name in found.adapters], fontsize=size)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"seconds, in cells of {found.step_seconds:g} s")
    handles = [Patch(facecolor=colours[level], label=_label(level, 1000 * limit_seconds)) for level in used]
    axes.figure.legend(
        handles=handles, loc="outside upper center", ncols=4, frameon=False, fontsize=8, handlelength=1.2
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


def _label(level: int, limit_ms: float) -> str:
    if level == _NONE:
        return "no answer"
    most = _LEVELS[level][0]
    if level == _NONE - 1:
        return f"above {_LEVELS[level - 1][0] * limit_ms:g} ms"
    return f"up to {most * limit_ms:g} ms" + (" (limit)" if most == 1.0 else "")


def _short(name: str) -> str:
    return name if len(name) <= 18 else name[:17] + "…"
