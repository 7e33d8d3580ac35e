"""Perplexity, divergence and agreement of each form with the original, on the same rows."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

from bases.processor import NATIVE_BF16_FLAGS, read_cpuinfo
from bases.resolve import ResolvedBase, resolve_base
from benchmarks.quantisation.figures import Made, MadeAdapter, MadeForm
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


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is held against an original: `name` in the record, what it is (for a new measurement), how it loads."""

    name: str
    identity: str
    load: Callable[[], Any]


def measure_merged(made: Made, plan: ReportPlan, record: Record[QualityFigures], *, say: Say) -> None:
    """Each form of the merged base on every text, as `FORM/TEXT`; what is recorded already is left out.

    Also the original in bfloat16, where the processor multiplies bfloat16 natively.
    """
    original, *forms = made.merged
    candidates = []
    if read_cpuinfo()[0] & NATIVE_BF16_FLAGS:
        candidates.append(Candidate("bfloat16", "bfloat16", lambda: _bfloat16(original, plan)))
    candidates += [
        Candidate(str(form.scheme), form.fingerprint, partial(_load, form, plan)) for form in forms
    ]
    _measure(original, candidates, plan, record, say=say)


def measure_recovery(made: Made, plan: ReportPlan, record: Record[QualityFigures], *, say: Say) -> None:
    """Each plain form that has a recovery adapter, without and with it, as `plain/FORM[+recovery]/TEXT`."""
    original, *forms = made.plain
    candidates = []
    for form in forms:
        recovery = made.recovery.get(str(form.scheme))
        if recovery is not None:
            name = f"plain/{form.scheme}"
            candidates += [
                Candidate(name, form.fingerprint, partial(_load, form, plan)),
                Candidate(
                    f"{name}+{recovery.name}",
                    f"{form.fingerprint} {recovery.digest}",
                    partial(_recovered, form, recovery, plan),
                ),
            ]
    _measure(original, candidates, plan, record, say=say)


def _measure(
    original: MadeForm,
    candidates: Sequence[Candidate],
    plan: ReportPlan,
    record: Record[QualityFigures],
    *,
    say: Say,
) -> None:
    base = _resolved(original, plan)
    texts = read_texts(base, plan, folder=plan.out) if candidates else []
    todo = [
        (text, candidate)
        for text in texts
        for candidate in candidates
        if record.get(f"{candidate.name}/{text.name}", _subject(text, original, candidate)) is None
    ]
    if not todo:
        return
    # By text: the original's logits of one text are in memory at a time.
    reference = _Remembered(load_as_served(base))
    models: dict[str, Any] = {}
    for text in texts:
        for candidate in [candidate for other, candidate in todo if other is text]:
            say(f"quality of {candidate.name} on {text.title}: {len(text.rows)} rows")
            if candidate.name not in models:
                models[candidate.name] = candidate.load()
            figures = measure_quality(reference, models[candidate.name], text.rows, progress=lambda _: None)
            record.put(f"{candidate.name}/{text.name}", _subject(text, original, candidate), figures)
        reference.forget()
    models.clear()
    gc.collect()


def _subject(text: Text, original: MadeForm, candidate: Candidate) -> str:
    num_tokens = sum(map(len, text.rows))
    return f"{original.fingerprint} {candidate.identity} {len(text.rows)} rows {num_tokens} tokens"


def _resolved(form: MadeForm, plan: ReportPlan) -> ResolvedBase:
    return resolve_base(form.folder, home=plan.home, progress=lambda _: None)


def _load(form: MadeForm, plan: ReportPlan) -> Any:
    return load_as_served(_resolved(form, plan))


def _bfloat16(form: MadeForm, plan: ReportPlan) -> Any:
    import torch

    return _load(form, plan).to(torch.bfloat16)


def _recovered(form: MadeForm, recovery: MadeAdapter, plan: ReportPlan) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(_load(form, plan), recovery.folder).eval()
