"""What waves say in words, of the gateway's targets among it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.load.peers.confidence import SHARE
from benchmarks.load.peers.findings import (
    ADDED_TTFT_TARGET_SECONDS,
    SAME_ENGINE,
    THROUGHPUT_RATIO_TARGET,
)
from benchmarks.load.peers.waves import Wave, WaveFigures, compare_waves


def wave_lines(load: str, waves: Mapping[str, Sequence[Wave]], theirs: str) -> list[str]:
    """Each way against the way `theirs`. Targets are of the same engine alone, and decided by whole intervals."""
    found = {
        name: compare_waves(ours, waves.get(theirs, ())) for name, ours in waves.items() if name != theirs
    }
    return [f"{name}, {load}: {_line(one, theirs)}" for name, one in found.items() if one is not None]


def _line(found: WaveFigures, theirs: str) -> str:
    ratio, added = found.ratio_interval, found.added_ttft_interval
    throughput = (
        f"throughput {found.ratio:.3f} of its, {100 * SHARE:g} % sure of {ratio.low:.3f} to {ratio.high:.3f}"
    )
    ttft = (
        f"TTFT {1000 * found.added_ttft_seconds:+.1f} ms, {100 * SHARE:g} % sure of {1000 * added.low:+.1f} to "
        f"{1000 * added.high:+.1f}"
    )
    if theirs == SAME_ENGINE:
        target, most = THROUGHPUT_RATIO_TARGET, ADDED_TTFT_TARGET_SECONDS
        word = "met" if ratio.low >= target else "MISSED" if ratio.high < target else "undecided"
        throughput += f", at least {target:g} wanted: {word}"
        word = "met" if added.high <= most else "MISSED" if added.low > most else "undecided"
        ttft += f", at most {1000 * most:g} wanted: {word}"
    return f"in {found.waves} waves in turns with {theirs} {throughput}; {ttft}"
