"""Plots in bars: where the time of requests goes, and arms that took turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.inline_svg import INK
from benchmarks.load.report.drawing import COLOURS

MOST_BARS = 24
_STAGE_COLOURS = {
    "late": "#999999",
    "way": "#56b4e9",
    "entry": "#e69f00",
    "admission": "#cc79a7",
    "engine_queue": "#d55e00",
    "prefill": "#0072b2",
    "decode": "#009e73",
    "rest": "#b8a800",
}
# What is shown of arms: metric -> label, and what the value is multiplied with.
_ARM_METRICS: dict[str, tuple[str, float]] = {
    "output_tok_s": ("tok/s", 1.0),
    "ttft_p50": ("TTFT p50, ms", 1000.0),
    "tpot_p50": ("TPOT p50, ms", 1000.0),
}


def fill_stages(axes: Any, splits: Mapping[str, Mapping[str, float]]) -> None:
    """`splits`: run -> stage -> mean seconds. A stage of less than nothing (a difference of means) is left out."""
    axes.figure.set_size_inches(6.0, 1.6 + 0.34 * len(splits))
    names = list(splits)
    left = [0.0] * len(names)
    for stage, colour in _STAGE_COLOURS.items():
        widths = [1000 * max(0.0, splits[name].get(stage, 0.0)) for name in names]
        if not any(widths):
            continue
        axes.barh(
            range(len(names)), widths, left=left, color=colour, label=stage.replace("_", " "), height=0.7
        )
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(names)), [_short(name) for name in names], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel("ms of a request, mean")
    axes.figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9, handlelength=1.2)


def fill_arms(axes: Any, figures: Sequence[Mapping[str, Any]]) -> None:
    """`figures`: conclusion["arms"]. A bar for the median over the rounds, a whisker from least to greatest."""
    arms = list(dict.fromkeys(figure["arm"] for figure in figures))[:MOST_BARS]
    values = {(figure["arm"], figure["metric"]): figure["value"] for figure in figures}
    shown = [metric for metric in _ARM_METRICS if any((arm, metric) in values for arm in arms)]
    whole = axes.figure
    axes.remove()
    whole.set_size_inches(6.0, 1.1 + 0.34 * max(3, len(arms)))
    places = range(len(arms))
    for number, (metric, each) in enumerate(
        zip(shown, whole.subplots(1, len(shown), sharey=True, squeeze=False)[0], strict=True)
    ):
        label, scale = _ARM_METRICS[metric]
        for place, arm in enumerate(arms):
            spread = values.get((arm, metric))
            if spread is None:
                continue
            median, low, high = (scale * spread[part] for part in ("median", "low", "high"))
            each.barh(place, median, color=COLOURS[number], height=0.7)
            if spread["count"] > 1:
                each.errorbar(
                    median,
                    place,
                    xerr=[[median - low], [high - median]],
                    color=INK,
                    capsize=2.5,
                    linewidth=1,
                )
        each.set_yticks(places, [_short(arm) for arm in arms], fontsize=9)
        each.set_xlabel(label)
        each.set_xlim(left=0)
        each.locator_params(axis="x", nbins=4)
    whole.axes[0].invert_yaxis()


def _short(name: str) -> str:
    return name if len(name) <= 22 else name[:21] + "…"
