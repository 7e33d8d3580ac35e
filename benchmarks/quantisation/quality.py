"""Perplexity, divergence and agreement of each form with the original, on the same rows."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bases.processor import NATIVE_BF16_FLAGS, read_cpuinfo
from bases.resolve import ResolvedBase, resolve_base
from benchmarks.quantisation.figures import MadeForm
from benchmarks.quantisation.fleet import Say
from benchmarks.quantisation.plan import ReportPlan
from benchmarks.quantisation.record import Record
from benchmarks.quantisation.texts import Text, read_texts
from quantize.quality.figures import QualityFigures
from quantize.quality.measure import measure_quality
from quantize.quality.served_model import load_as_served


class _Remembered:
    """A model that computes the logits of each row once; the rows of one text are kept, in float32."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._kept: dict[tuple[int, ...], Any] = {}

    def __call__(self, *, input_ids: Any, use_cache: bool) -> Any:
        key = tuple(input_ids[0].tolist())
        if key not in self._kept:
            self._kept[key] = self._model(input_ids=input_ids, use_cache=use_cache).logits
        return SimpleNamespace(logits=self._kept[key])

    def forget(self) -> None:
        self._kept.clear()


def measure_forms(
    original: MadeForm,
    forms: Sequence[MadeForm],
    plan: ReportPlan,
    record: Record[QualityFigures],
    *,
    folder: Path,
    say: Say,
) -> None:
    """Every form on every text, kept as `FORM/TEXT`; what is recorded already is left out.

    Also the original in bfloat16, where the processor multiplies bfloat16 natively.
    """
    base = resolve_base(original.folder, home=plan.home, progress=say)
    texts = read_texts(base, plan, folder=folder)
    names = ["bfloat16"] if read_cpuinfo()[0] & NATIVE_BF16_FLAGS else []
    names += [str(form.scheme) for form in forms]
    by_name = {str(form.scheme): form for form in forms}
    todo = [
        (name, text) for name in names for text in texts if _missing(record, name, text, original, by_name)
    ]
    if not todo:
        return
    # By text: the original's logits of one text are in memory at a time.
    reference = _Remembered(load_as_served(base))
    models: dict[str, Any] = {}
    for text in texts:
        for name in [name for name, other in todo if other is text]:
            say(f"quality of {name} on {text.title}: {len(text.rows)} rows")
            if name not in models:
                models[name] = _load(name, base, by_name, plan, say)
            figures = measure_quality(reference, models[name], text.rows, progress=lambda _: None)
            record.put(f"{name}/{text.name}", _subject(text, original, by_name.get(name)), figures)
        reference.forget()
    del reference, models
    gc.collect()


def _load(name: str, base: ResolvedBase, by_name: dict[str, MadeForm], plan: ReportPlan, say: Say) -> Any:
    import torch

    if name == "bfloat16":
        return load_as_served(base).to(torch.bfloat16)
    return load_as_served(resolve_base(by_name[name].folder, home=plan.home, progress=say))


def _missing(
    record: Record[QualityFigures], name: str, text: Text, original: MadeForm, by_name: dict[str, MadeForm]
) -> bool:
    return record.get(f"{name}/{text.name}", _subject(text, original, by_name.get(name))) is None


def _subject(text: Text, original: MadeForm, form: MadeForm | None) -> str:
    tokens = sum(map(len, text.rows))
    return f"{original.fingerprint} {form.fingerprint if form else 'bfloat16'} {len(text.rows)}x{tokens}"
