"""From a base to its quantised form in its place, measured: the stages of `hotswap quantize`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bases.errors import HotswapError
from bases.lineage import BaseStep, ParentBase, extend_lineage, write_lineage
from bases.passport import Passport, read_passport
from bases.place import made_in_place
from bases.progress import Progress, log_progress
from bases.resolve import ResolvedBase
from quantize.calibration.calibration_set import CalibrationSet, split_rows
from quantize.calibration.make import make_calibration
from quantize.compress import compress
from quantize.errors import PreflightError, QuantizeError
from quantize.layout.checkpoint import write_gptq_layout
from quantize.outcome import QuantizeOutcome
from quantize.placed import PlacedBase
from quantize.preflight import Preflight, check_run, exists, goes_on_behind, layout_folder
from quantize.progress import quiet_compressor
from quantize.quality.figures import QualityFigures
from quantize.quality.measure import measure_quality
from quantize.quality.served_model import load_as_served
from quantize.recipe import RECIPE_NAME
from quantize.recovery.make import check_wishes, make_recovery
from quantize.recovery.settings import RecoverySettings
from quantize.resume import KeptLayers, forget_others, run_key
from quantize.settings import QuantizeSettings
from quantize.stored import save_quantised, weight_bytes


def quantize_base(
    base: ResolvedBase,
    *,
    settings: QuantizeSettings,
    recovery: RecoverySettings | None = None,
    home: Path,
    progress: Progress = log_progress,
) -> QuantizeOutcome:
    """Make a quantised form of `base`, measure it against the original, and put it in its place in one step.

    Whatever is raised, nothing half-made is left: the output folder is complete or does not exist. An interrupted
    run (Ctrl-C, a killed process, a full disk) keeps the layers that it finished in `home`, and the same call goes
    on from them; one that was interrupted behind the finished base, while it wrote the GPTQ layout or made the
    recovery adapter, goes on behind it. One that failed otherwise keeps no layers. Raises PreflightError with every
    problem that can be known beforehand, BaseConversionError where the base cannot be written, CompressorError, and
    the errors of calibration, data and recovery.
    """
    recovery = recovery or RecoverySettings()
    if settings.recover:
        check_wishes(recovery, home=home)
    with quiet_compressor() as heard:
        outcome, rows, held_out = _make(base, settings, home, progress)
    noted = tuple(f"llm-compressor: {text}" for text in heard)
    outcome = replace(outcome, notes=(*outcome.notes, *noted))
    with _standing(outcome.folder, settings, progress):
        if settings.layout == "gptq":
            outcome = replace(outcome, layout_folder=_write_layout(outcome.folder, progress))
        if settings.recover:
            recovered = make_recovery(
                _resolved(outcome.folder, outcome.folder.name),
                base,
                rows=rows,
                held_out=held_out,
                settings=recovery,
                home=home,
                progress=progress,
            )
            outcome = replace(outcome, recovery=recovered, seconds=outcome.seconds + recovered.seconds)
    PlacedBase(home, outcome.folder).forget()
    return outcome


@contextlib.contextmanager
def _standing(folder: Path, settings: QuantizeSettings, progress: Progress) -> Iterator[None]:
    """Say, where the block does not end well, that the base itself is finished, and how to go on."""
    try:
        yield
    except (HotswapError, KeyboardInterrupt):
        again = "; the same command goes on behind it" if settings.resume else ""
        progress(f"Stopped. The quantised base is whole in {folder}{again}")
        raise


def _make(
    base: ResolvedBase, settings: QuantizeSettings, home: Path, progress: Progress
) -> tuple[QuantizeOutcome, list[list[int]], list[list[int]]]:
    """(what was made, the calibration rows, the held-out rows)."""
    started = time.monotonic()
    preflight = check_run(base, settings, home=home)
    for note in preflight.notes:
        progress(f"note: {note}")
    calibrated = preflight.plan.calibrated_passes > 0
    passport = read_passport(base, home=home, progress=progress)
    calibration = make_calibration(
        base,
        data=settings.data,
        num_samples=settings.samples if calibrated else 1,
        answers=settings.answers if calibrated else "reference",
        evaluation=settings.evaluation,
        row_tokens=settings.row_tokens,
        seed=settings.seed,
        progress=progress,
        home=home,
    )
    _check_enough(calibration, preflight)
    if calibrated:
        for warning in calibration.warnings:
            progress(f"warning: {warning}")
    rows, held_out = split_rows(calibration, settings.held_out_rows)
    key = run_key(passport.fingerprint, preflight.recipe.text, settings.store_dtype, rows)
    placed = PlacedBase(home, preflight.out)
    quality = placed.quality() if preflight.placed_by == key else None
    if quality is not None:
        progress(
            f"{preflight.out} is there, made by this command before it was interrupted: going on behind it"
        )
        outcome = _outcome(base, preflight, calibration, quality, started)
        return outcome, rows, held_out
    if preflight.out.exists() and not settings.force:
        raise PreflightError(base.name, [exists(preflight.out)])
    kept = KeptLayers(home, preflight.out, key) if settings.resume and calibrated else None
    with made_in_place(preflight.out, replace=settings.force, progress=progress) as partial:
        forget_others(home, preflight.out, key)
        try:
            model, heard = compress(
                base,
                preflight.recipe,
                preflight.plan,
                rows,
                store_dtype=settings.store_dtype,
                kept=kept,
                say=progress,
            )
            progress("Writing the quantised base")
            save_quantised(
                model, partial, parent=base.path, plan=preflight.plan, store_dtype=settings.store_dtype
            )
            del model
            (partial / RECIPE_NAME).write_text(preflight.recipe.text, encoding="utf-8")
            quality = _measure(base, partial, calibration, held_out, settings, progress)
            _write_lineage(partial, base, passport, preflight, calibration, quality)
            _note(placed, partial, key, settings, progress)
        except HotswapError:
            if kept is not None:
                kept.forget()
            raise
        except (KeyboardInterrupt, OSError):
            if kept is not None:
                progress("Stopped. Finished layers are kept: the same command goes on from there")
            raise
    if kept is not None:
        kept.forget()
    outcome = _outcome(base, preflight, calibration, quality, started)
    taken_over = kept.taken_over if kept is not None else 0
    return replace(outcome, layers_taken_over=taken_over, notes=(*outcome.notes, *heard)), rows, held_out


def _note(placed: PlacedBase, folder: Path, key: str, settings: QuantizeSettings, progress: Progress) -> None:
    """Write down whose base this is while something is still to be made of it."""
    try:
        placed.forget()
        if settings.resume and goes_on_behind(settings):
            placed.note(folder, key)
    except OSError as error:
        progress(
            f"warning: an interruption behind the finished base cannot be gone on from ({error.strerror}): "
            "the base would be made again"
        )


def _outcome(
    base: ResolvedBase,
    preflight: Preflight,
    calibration: CalibrationSet,
    quality: QualityFigures,
    started: float,
) -> QuantizeOutcome:
    """What is there once the base is in its place."""
    calibrated = preflight.plan.calibrated_passes > 0
    return QuantizeOutcome(
        folder=preflight.out,
        scheme=preflight.recipe.name,
        bytes_before=weight_bytes(base.path),
        bytes_after=weight_bytes(preflight.out),
        quality=quality,
        calibration=calibration.stats if calibrated else None,
        recovery=None,
        layout_folder=None,
        layers_taken_over=0,
        seconds=time.monotonic() - started,
        notes=(*preflight.notes, *(calibration.warnings if calibrated else ())),
    )


def _write_layout(out: Path, progress: Progress) -> Path:
    folder = layout_folder(out)
    progress(f"Writing the same numbers in the GPTQ layout to {folder}")
    # Preflight refused one that may not be replaced; what an interrupted run wrote is one that may.
    write_gptq_layout(out, folder, replace=True, progress=progress)
    return folder


def _check_enough(calibration: CalibrationSet, preflight: Preflight) -> None:
    """Refuse fewer tokens than a layer has inputs, on which no second moments can be known."""
    least = preflight.plan.widest
    if preflight.plan.calibrated_passes and calibration.stats.tokens < least:
        raise QuantizeError(
            f"The calibration text ({calibration.stats.source}) gives {calibration.stats.tokens:,} tokens in rows "
            f"of {calibration.stats.row_tokens:,}; at least {least:,} are needed, as many as the widest layer has "
            "inputs, and several times as many are good. Give more text, or leave --data out for the shipped set."
        )


def _measure(
    base: ResolvedBase,
    folder: Path,
    calibration: CalibrationSet,
    held_out: list[list[int]],
    settings: QuantizeSettings,
    progress: Progress,
) -> QualityFigures:
    progress(f"Measuring against the original on {len(held_out)} held-out rows")
    return measure_quality(
        load_as_served(base),
        load_as_served(_resolved(folder, f"quantised {base.name}")),
        held_out,
        prompts=calibration.held_out_prompts[: settings.held_out_rows],
        seed=settings.seed,
        progress=progress,
    )


def _write_lineage(
    folder: Path,
    base: ResolvedBase,
    passport: Passport,
    preflight: Preflight,
    calibration: CalibrationSet,
    quality: QualityFigures,
) -> None:
    step = BaseStep(
        kind="quantise",
        parent=ParentBase(fingerprint=passport.fingerprint, name=base.name),
        scheme=preflight.recipe.name,
        base_rounding=quality.base_rounding,
        moves_scales=preflight.plan.moves_scales,
        details={
            "quality": quality.model_dump(mode="json"),
            "calibration": {
                "source": calibration.stats.source,
                "examples": calibration.stats.examples,
                "rows": calibration.stats.rows,
                "tokens": calibration.stats.tokens,
            }
            if preflight.plan.calibrated_passes
            else None,
        },
    )
    write_lineage(folder, extend_lineage(base.path, step))


def _resolved(folder: Path, name: str) -> ResolvedBase:
    """The quantised base as it lies in `folder`."""
    return ResolvedBase(name, str(folder), folder, None, "folder")
