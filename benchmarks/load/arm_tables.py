"""The tables of a comparison of arms, from the conclusion that `rounds.conclusion_of_turns` makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.load.table import Table

# metric -> heading, and what the value is multiplied with for display.
_SHOWN: dict[str, tuple[str, float]] = {
    "output_tok_s": ("tok/s", 1.0),
    "goodput": ("goodput req/s", 1.0),
    "ttft_p50": ("TTFT p50, ms", 1000.0),
    "ttft_p99": ("TTFT p99, ms", 1000.0),
    "tpot_p50": ("TPOT p50, ms", 1000.0),
}


def arm_tables(conclusion: Mapping[str, Any]) -> list[Table]:
    """Values of every arm, and ratios to the baseline."""
    arms: dict[str, dict[str, Mapping[str, Any]]] = {}
    for figure in conclusion["arms"]:
        arms.setdefault(figure["arm"], {})[figure["metric"]] = figure
    baseline = conclusion["baseline"]
    note = f"Median of {conclusion['rounds']} rounds (least to greatest); arms took turns in each."
    values = [
        (name, *(_spread(metrics.get(metric), "value", scale) for metric, (_, scale) in _SHOWN.items()))
        for name, metrics in arms.items()
    ]
    ratios = [
        (name, *(_spread(metrics.get(metric), "ratio", 1.0) for metric in _SHOWN))
        for name, metrics in arms.items()
        if name != baseline
    ]
    headings = [heading for heading, _ in _SHOWN.values()]
    tables = [Table("Side by side", ("arm", *headings), tuple(values), (note,))]
    if ratios:
        plain = [heading.split(",")[0] for heading in headings]
        tables.append(
            Table(f"Ratio to {baseline} in the same round", ("arm", *plain), tuple(_rows(ratios)), (note,))
        )
    return tables


def _spread(figure: Mapping[str, Any] | None, name: str, scale: float) -> str:
    found = None if figure is None else figure[name]
    if found is None:
        return "-"
    median, low, high = (scale * found[part] for part in ("median", "low", "high"))
    if found["count"] == 1:
        return f"{median:.4g}"
    return f"{median:.4g} ({low:.4g} to {high:.4g})"


def _rows(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [row for row in rows if any(cell != "-" for cell in row[1:])]
