"""The base with its output layer in 8 bits beside the same base with the stored one, on held-out text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bases.disk import why_unwritten
from bases.passport import read_passport
from bases.progress import Progress, log_progress
from bases.resolve import ResolvedBase
from quantize.calibration.calibration_set import split_rows
from quantize.calibration.make import make_calibration
from quantize.errors import QuantizeError
from quantize.lm_head.record import LmHeadRecord, record_path, write_record
from quantize.lm_head.rounding import restore_table, round_table
from quantize.quality.errors import QualityError
from quantize.quality.measure import measure_quality
from quantize.quality.served_model import load_as_served
from quantize.settings import QuantizeSettings


class RoundedHead:
    """A transformers model whose output layer multiplies by the rounded table; embeddings stay as they are."""

    def __init__(self, model: Any) -> None:
        """`model` is left as it is. Raises QualityError for an output layer that cannot be rounded."""
        head = model.get_output_embeddings()
        table = getattr(head, "weight", None)
        if table is None or table.ndim != 2 or not table.is_floating_point():
            raise QualityError("The base has no output layer of plain weights, which could be rounded.")
        try:
            self._table = restore_table(*round_table(table.detach()))
        except ValueError as error:
            raise QualityError(f"The output layer stays as it is stored: {error}.") from None
        self._model, self._head = model, head

    def __call__(self, **given: Any) -> Any:
        """What the model gives with the rounded output layer; soft caps and scales of the model come after it."""
        import torch

        def multiply(module: Any, inputs: tuple[Any, ...], _output: Any) -> Any:
            return torch.nn.functional.linear(inputs[0], self._table, getattr(module, "bias", None))

        handle = self._head.register_forward_hook(multiply)
        try:
            return self._model(**given)
        finally:
            handle.remove()


def measure_lm_head(
    base: ResolvedBase, *, settings: QuantizeSettings, home: Path, progress: Progress = log_progress
) -> LmHeadRecord:
    """Measure on `settings.held_out_rows` rows and keep the record in `home`, whether it passes or not.

    A quantised base is measured as it is served, against itself with the stored output layer. Raises QualityError,
    BaseInvalidError or CalibrationError for a base or text that cannot be measured, QuantizeError if nothing can be
    kept.
    """
    passport = read_passport(base, home=home, progress=progress)
    calibration = make_calibration(
        base,
        data=settings.data,
        num_samples=1,
        row_tokens=settings.row_tokens,
        seed=settings.seed,
        progress=progress,
        evaluation=settings.evaluation,
        home=home,
    )
    _, held_out = split_rows(calibration, settings.held_out_rows)
    model = load_as_served(base)
    rounded = RoundedHead(model)
    progress(f"Measuring the output layer in 8 bits on {len(held_out)} held-out rows")
    quality = measure_quality(model, rounded, held_out, seed=settings.seed, progress=progress)
    record = LmHeadRecord(
        base=base.name,
        fingerprint=passport.fingerprint,
        source=calibration.stats.source,
        quality=quality,
    )
    try:
        write_record(record, home)
    except OSError as error:
        raise QuantizeError(
            f"The figures cannot be kept in {record_path(home, record.fingerprint).parent}: {why_unwritten(error)}"
        ) from error
    return record
