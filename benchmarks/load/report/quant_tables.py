"""The tables of bases side by side: what each takes, and what it holds within the limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.load.report.table import Table

_MIB = 1024**2
_NOT_MEASURED = "not measured"


def base_tables(conclusion: Mapping[str, Any]) -> list[Table]:
    """From what `quant.conclusion_of` made."""
    bases = conclusion["bases"]
    sizes = Table(
        "Bases",
        (
            "base",
            "scheme",
            "format",
            "on disk, MiB",
            "weights in memory, MiB",
            "all processes, MiB",
            "quality",
        ),
        tuple(
            (
                base["name"],
                base["scheme"] or "none",
                base["dtype"],
                _mib(base["disk_bytes"]),
                _mib(base["weights_bytes"]),
                _mib(base["pss_bytes"]),
                base["quality"],
            )
            for base in bases
        ),
        (
            "Weights in memory: what loading them added to the engine. All processes: their share of memory after "
            "the load, KV cache included. Quality: as `hotswap quantize` measured it on held-out rows.",
        ),
    )
    return [sizes, *_held(conclusion)]


def _held(conclusion: Mapping[str, Any]) -> list[Table]:
    bases, search = conclusion["bases"], conclusion["search"]
    if search is None:
        return []
    first = bases[0]["held"]["rate"]
    rows = tuple(
        (
            base["name"],
            _rate(base["held"]["rate"]),
            _rate(base["held"]["failed_rate"]),
            f"{base['held']['rate'] / first:.3f}" if first and base["held"]["rate"] else "-",
            base["quality"],
        )
        for base in bases
    )
    note = (
        f"Held: at least {search['attainment']:.0%} of the measured requests within both limits, in a run that "
        f"counts. Each search ends when the two rates are within 5 %, or after {search['most_runs']} runs."
    )
    headings = ("base", "held, req/s", "not held, req/s", f"ratio to {bases[0]['name']}", "quality")
    return [Table("Highest rate within the limits", headings, rows, (note,))]


def _mib(count: int | None) -> str:
    return _NOT_MEASURED if count is None else f"{count / _MIB:.0f}"


def _rate(rate: float | None) -> str:
    return "none seen" if rate is None else f"{rate:.2f}"
