"""`hotswap quantize`: settings to a run, and the table at its end. Light to import: hotswap.py does."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from bases.settings_faults import settings_faults
from quantize.errors import QuantizeSettingsError
from quantize.recovery.settings import RecoverySettings
from quantize.settings import QuantizeSettings, load_quantize_settings

if TYPE_CHECKING:
    from pathlib import Path

    from quantize.lm_head.record import LmHeadRecord
    from quantize.outcome import QuantizeOutcome
    from quantize.quality.figures import QualityFigures


def quantize(base: str, *, given: dict[str, Any], recovery_given: dict[str, Any]) -> QuantizeOutcome | None:
    """Quantise the base that `base` names and show what came of it; None where it was only measured.

    `given` and `recovery_given` are flags, None where not given. Raises HotswapError with the message for the user.
    """
    settings = load_quantize_settings(
        **{name: value for name, value in given.items() if value not in (None, [])}
    )
    recovery = _recovery_settings(recovery_given, settings)
    home = settings.home_folder
    from bases.resolve import resolve_base

    resolved = resolve_base(base, home=home, revision=settings.base_revision, progress=_say)
    _say(f"Loading the libraries to quantise {resolved.name} with")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if settings.lm_head_bits is not None:
        from quantize.lm_head.measure import measure_lm_head

        show_record(measure_lm_head(resolved, settings=settings, home=home, progress=_say), base)
        return None
    from quantize.run import quantize_base

    outcome = quantize_base(resolved, settings=settings, recovery=recovery, home=home, progress=_say)
    show_outcome(outcome, resolved.name, home)
    return outcome


def _recovery_settings(given: dict[str, Any], settings: QuantizeSettings) -> RecoverySettings | None:
    named = {name: value for name, value in given.items() if value is not None}
    if named and not settings.recover:
        flags = ", ".join("--" + name.replace("_", "-") for name in sorted(named))
        raise QuantizeSettingsError(f"{flags} without --recover decides nothing; give --recover too.")
    if not settings.recover:
        return None
    try:
        return RecoverySettings(**named)
    except ValidationError as error:
        faults = settings_faults(error, as_flags=True)
        raise QuantizeSettingsError(f"these settings cannot be used:\n{faults}") from None


def show_outcome(outcome: QuantizeOutcome, base_name: str, home: Path) -> None:
    """A table of the run's figures on standard output, and what to type next."""
    from rich.console import Console
    from rich.table import Column, Table

    from bases.resolve import made_folder
    from quantize.progress import duration

    table = Table(
        Column(), Column(overflow="fold"), title=f"{base_name} in {outcome.scheme}", show_header=False
    )
    before, after = outcome.bytes_before, outcome.bytes_after
    table.add_row("weights on disk", f"{_mib(before)} -> {_mib(after)} ({after / before:.0%})")
    _add_quality(table, outcome.quality)
    if outcome.calibration is not None:
        stats = outcome.calibration
        table.add_row(
            "calibrated on",
            f"{stats.rows} rows of {stats.row_tokens} tokens = {stats.tokens:,} ({stats.source})",
        )
    if outcome.layers_taken_over:
        table.add_row("taken over", f"{outcome.layers_taken_over} layers of an interrupted run")
    for note in outcome.notes:
        table.add_row("note", note)
    if outcome.recovery is not None:
        for line in outcome.recovery.describe():
            table.add_row("recovery", line)
    table.add_row("time", duration(outcome.seconds))
    table.add_row("folder", str(outcome.folder))
    if outcome.layout_folder is not None:
        table.add_row("in GPTQ layout", str(outcome.layout_folder))
    Console().print(table)
    reference = outcome.folder.name if outcome.folder.parent == made_folder(home) else str(outcome.folder)
    sys.stdout.write(f"Next: hotswap serve --base {reference}\n")
    if outcome.recovery is not None and outcome.recovery.published:
        sys.stdout.write(
            f"      hotswap adapters compose {outcome.recovery.name} TASK --base {reference} --out FOLDER\n"
        )


def show_record(record: LmHeadRecord, reference: str) -> None:
    """The figures of the output layer in 8 bits, and whether it may be served; raises QualityError if not."""
    from rich.console import Console
    from rich.table import Table

    from quantize.quality.errors import QualityError

    table = Table(title=f"{record.base} with its output layer in 8 bits", show_header=False)
    _add_quality(table, record.quality)
    Console().print(table)
    problems = record.problems()
    if problems:
        raise QualityError(f"It does not pass, and will not be served so: {'; '.join(problems)}.")
    sys.stdout.write(f"It passes. Next: hotswap serve --base {reference} --lm-head-bits 8\n")


def _add_quality(table: Any, quality: QualityFigures) -> None:
    table.add_row(
        "perplexity",
        f"{quality.original_perplexity.value:.4g} -> {quality.quantised_perplexity.value:.4g} "
        f"(x {quality.perplexity_ratio})",
    )
    table.add_row("KL divergence", f"{quality.mean_kl_nats} nats per token, 99 %: {quality.p99_kl_nats}")
    table.add_row("same likeliest token", _share(quality.top1_agreement))
    table.add_row("measured on", f"{quality.num_tokens:,} held-out tokens in {quality.num_rows} rows")


def _share(figure: Any) -> str:
    if figure.low is None:
        return f"{figure.value:.1%}"
    return f"{figure.value:.1%} [{figure.low:.1%}, {figure.high:.1%}]"


def _mib(size: int) -> str:
    return f"{size / 1024**2:,.1f} MiB"


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
