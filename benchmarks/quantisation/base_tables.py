"""Tables of the bases themselves, on whatever machine: size and quality."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.quantisation.report import Report
from benchmarks.quantisation.table import Table
from benchmarks.quantisation.wording import NONE, mib, ratio, spread, times

_PLAIN = "plain/"
_QUALITY_HEADINGS = (
    "text",
    "form",
    "perplexity",
    "of the original's",
    "mean KL",
    "p99 KL",
    "top-1 agreement",
    "tokens",
)


def disk_table(report: Report) -> Table:
    original = report.made.merged[0]
    rows = [
        (
            form.scheme or "original",
            mib(form.disk_bytes),
            times(ratio(form.disk_bytes, original.disk_bytes)),
            NONE if form.seconds is None else f"{form.seconds:.0f}",
        )
        for form in report.made.merged
    ]
    return Table(
        "Size on disk",
        "Files of the weights. What stays unquantised (embedding, norms, the vocabulary product) is stored in "
        "bfloat16 in a quantised base; the original is stored as it came.",
        ("form", "MiB", "of the original", "seconds to make"),
        rows,
    )


def quality_table(report: Report) -> Table:
    return Table(
        "Quality against the original",
        "In transformers, weights dequantised and activations rounded as they are served, on rows of tokens that "
        "were neither calibrated nor trained on. In brackets: 95 % bootstrap intervals over rows. KL is from the "
        "original to the form, in nats per token.",
        _QUALITY_HEADINGS,
        _quality_rows(report, [name for name in _names(report) if not name.startswith(_PLAIN)]),
    )


def recovery_table(report: Report) -> Table:
    return Table(
        "What the recovery adapter brings",
        "The quantised form of the unmerged base, without and with its recovery adapter, against that base; read "
        "as the table above.",
        _QUALITY_HEADINGS,
        _quality_rows(report, [name for name in _names(report) if name.startswith(_PLAIN)]),
    )


def _names(report: Report) -> list[str]:
    return list(dict.fromkeys(key.rpartition("/")[0] for key in report.quality))


def _quality_rows(report: Report, names: Sequence[str]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for text, title in report.texts.items():
        found = [(name, report.quality.get(f"{name}/{text}")) for name in names]
        measured = [(name, figures) for name, figures in found if figures is not None]
        for place, (name, figures) in enumerate(measured):
            if place == 0:
                shown = spread(figures.original_perplexity, "{:.4g}")
                rows.append((title, "original", shown, "1", "0", "0", "100 %", str(figures.num_tokens)))
            rows.append(
                (
                    title,
                    name.removeprefix(_PLAIN),
                    spread(figures.quantised_perplexity, "{:.4g}"),
                    spread(figures.perplexity_ratio, "{:.3f}"),
                    spread(figures.mean_kl_nats, "{:.4f}"),
                    spread(figures.p99_kl_nats, "{:.3f}"),
                    spread(figures.top1_agreement, "{:.1f}", scale=100) + " %",
                    str(figures.num_tokens),
                )
            )
    return rows
