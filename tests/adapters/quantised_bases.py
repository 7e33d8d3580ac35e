"""Tiny bases rounded to nearest by llmcompressor, with the lineage that `hotswap quantize` writes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

from bases.lineage import BaseStep, ParentBase, extend_lineage, write_lineage
from bases.passport import read_passport
from bases.resolve import resolve_base
from tests.adapters.export.trained_models import TinyBase


class QuantisedBase(TinyBase):
    """A quantised base on disk, loaded as it is trained against."""

    def load(self) -> Any:
        import torch

        from adapters.training.base_model import load_training_model

        return load_training_model(self.resolved, dtype=torch.float32).model


def quantise(
    original: TinyBase, folder: Path, scheme: Literal["W8A8", "W4A16"], *, rounding: float | None = None
) -> QuantisedBase:
    """`original` in the new `folder`; `rounding` goes into the lineage as the measured one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # llmcompressor's own
        from llmcompressor import oneshot
        from llmcompressor.modifiers.quantization import QuantizationModifier

        recipe = QuantizationModifier(scheme=scheme, targets="Linear", ignore=["lm_head"])
        oneshot(model=str(original.resolved.path), recipe=recipe, output_dir=str(folder))
    step = BaseStep(
        kind="quantise",
        parent=ParentBase(fingerprint=original.passport.fingerprint, name=original.resolved.name),
        scheme=scheme.lower(),
        base_rounding=rounding,
    )
    write_lineage(folder, extend_lineage(original.resolved.path, step))
    home = folder.parent / "home"
    resolved = resolve_base(str(folder), home=home, progress=lambda _: None)
    return QuantisedBase(resolved, read_passport(resolved, home=home, progress=lambda _: None))
