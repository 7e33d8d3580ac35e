"""What the colour of a heat map's cell says: blue within the limits, orange beyond, told by lightness too."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.inline_svg import INK
from benchmarks.load.client.record import Record
from benchmarks.load.figures.slo import Slo

_BLUES = ("#c6dbef", "#6baed6", "#2171b5")
_ORANGES = ("#fdae6b", "#e6550d", "#a63603")
# Up to this share of the limit for TTFT -> colour.
_TTFT_LEVELS = tuple(zip((0.25, 0.5, 1.0, 2.0, 4.0, float("inf")), (*_BLUES, *_ORANGES), strict=True))
_NO_ANSWER = len(_TTFT_LEVELS)  # asked, and nothing was answered
# From this share of requests within the limits -> colour; the last one is of none at all.
_SHARE_LEVELS = (
    *zip((1.0, 0.99, 0.9), reversed(_BLUES), strict=True),
    *zip((0.5, 1e-9), _ORANGES[:2], strict=True),
    (0.0, INK),
)
_UNCOUNTED = frozenset({"cancelled", "unloaded", "unfinished"})


@dataclass(frozen=True, slots=True)
class HeatScale:
    """`level` is the place of a cell among `colours` and `labels`; None: it stays empty."""

    colours: tuple[str, ...]
    labels: tuple[str, ...]
    level: Callable[[Sequence[Record]], int | None]


def ttft_scale(limit_seconds: float) -> HeatScale:
    """The median TTFT of a cell's answers against the limit."""

    def level(cell: Sequence[Record]) -> int | None:
        # Without a stream there is no first text: the whole answer stands for it.
        times = [record.ttft_seconds or record.e2e_seconds for record in cell if record.ok]
        known = [seconds for seconds in times if seconds is not None]
        if not known:
            return _NO_ANSWER
        share = statistics.median(known) / limit_seconds
        return next(place for place, (most, _) in enumerate(_TTFT_LEVELS) if share <= most)

    def label(place: int) -> str:
        most = _TTFT_LEVELS[place][0]
        if place == _NO_ANSWER - 1:
            return f"above {_TTFT_LEVELS[place - 1][0] * 1000 * limit_seconds:g} ms"
        return f"up to {most * 1000 * limit_seconds:g} ms" + (" (limit)" if most == 1.0 else "")

    colours = (*(colour for _, colour in _TTFT_LEVELS), INK)
    return HeatScale(colours, (*map(label, range(_NO_ANSWER)), "no answer"), level)


def attainment_scale(slo: Slo) -> HeatScale:
    """The share of a cell's requests that were answered in full within the limits.

    As everywhere, rejected and failed ones are not good; cancelled and unloaded ones do not count.
    """

    def level(cell: Sequence[Record]) -> int | None:
        counted = [record for record in cell if record.outcome not in _UNCOUNTED]
        if not counted:
            return None
        share = sum(slo.good(record) for record in counted) / len(counted)
        return next(place for place, (least, _) in enumerate(_SHARE_LEVELS) if share >= least)

    labels = tuple(
        "all"
        if least == 1.0
        else "none"
        if least == 0.0
        else "fewer"
        if least < 0.01
        else f"{least:.0%} or more"
        for least, _ in _SHARE_LEVELS
    )
    return HeatScale(tuple(colour for _, colour in _SHARE_LEVELS), labels, level)
