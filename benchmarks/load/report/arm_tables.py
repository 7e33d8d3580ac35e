"""The tables of a comparison of arms, from the conclusion that `rounds.conclusion_of_turns` makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.load.report.quant_tables import base_tables
from benchmarks.load.report.table import Table

# metric -> heading, and what the value is multiplied with for display.
_SHOWN: dict[str, tuple[str, float]] = {
    "output_tok_s": ("tok/s", 1.0),
    "goodput": ("goodput req/s", 1.0),
    "ttft_p50": ("TTFT p50, ms", 1000.0),
    "ttft_p99": ("TTFT p99, ms", 1000.0),
    "tpot_p50": ("TPOT p50, ms", 1000.0),
    "tpot_p99": ("TPOT p99, ms", 1000.0),
}


def arm_tables(conclusion: Mapping[str, Any]) -> list[Table]:
    """Values of every arm, and ratios to the one it is set against; with a word on quality where arms have one."""
    arms: dict[str, dict[str, Mapping[str, Any]]] = {}
    for figure in conclusion["arms"]:
        arms.setdefault(figure["arm"], {})[figure["metric"]] = figure
    quality: Mapping[str, str] = conclusion.get("quality", {})
    rounds = conclusion["rounds"]
    spread = "One round" if rounds == 1 else f"Median of {rounds} rounds (least to greatest)"
    note = f"{spread}; arms took turns."
    notes = (note, *conclusion.get("notes", ()))
    values = [
        (
            name,
            *(_spread(metrics.get(metric), "value", scale) for metric, (_, scale) in _SHOWN.items()),
            *_said(quality, name),
        )
        for name, metrics in arms.items()
    ]
    headings = [heading for heading, _ in _SHOWN.values()]
    last = ["quality"] if quality else []
    tables = [Table("Side by side", ("arm", *headings, *last), tuple(values), notes)]
    ratios = _ratios(arms, quality)
    if ratios:
        baselines = sorted({row[1] for row in ratios})
        plain = [heading.split(",")[0] for heading in headings]
        if len(baselines) == 1:
            title, first = f"Ratio to {baselines[0]} in the same round", ["arm"]
            ratios = [(row[0], *row[2:]) for row in ratios]
        else:
            title, first = "Ratios in the same round", ["arm", "against"]
        tables.append(Table(title, (*first, *plain, *last), tuple(ratios), (note,)))
    return tables + (base_tables(conclusion) if "bases" in conclusion else [])


def _ratios(
    arms: Mapping[str, Mapping[str, Mapping[str, Any]]], quality: Mapping[str, str]
) -> list[tuple[str, ...]]:
    """(arm, the arm it is set against, ratios, quality), without arms that have no ratio."""
    rows = []
    for name, metrics in arms.items():
        against = next((figure["against"] for figure in metrics.values() if figure["ratio"]), None)
        if against is not None:
            cells = [_spread(metrics.get(metric), "ratio", 1.0) for metric in _SHOWN]
            rows.append((name, against, *cells, *_said(quality, name)))
    return rows


def _said(quality: Mapping[str, str], name: str) -> tuple[str, ...]:
    return (quality.get(name, "not measured"),) if quality else ()


def _spread(figure: Mapping[str, Any] | None, name: str, scale: float) -> str:
    found = None if figure is None else figure[name]
    if found is None:
        return "-"
    median, low, high = (scale * found[part] for part in ("median", "low", "high"))
    if found["count"] == 1:
        return _short(median)
    return f"{_short(median)} ({_short(low)} to {_short(high)})"


def _short(value: float) -> str:
    """Four digits, and never a power of ten."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
