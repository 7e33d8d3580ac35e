"""From a trained model to a folder that the engine serves exactly: the one way an adapter leaves training.

What is saved is read back through stock PEFT on the original base before it counts as exported: the probe file
is made from it, and its answers are held against the trained model's.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from adapters.check import check_adapter
from adapters.errors import ExportError
from adapters.export.collect import collect_adapter
from adapters.export.continuation import score_answers
from adapters.export.difference import collect_difference
from adapters.export.fidelity import Answer
from adapters.export.model_card import render_card
from adapters.export.probe_writer import largest_effect, make_probe
from adapters.export.publish import CARD_NAME
from adapters.export.servable import EXACT_ERROR, ServableForm, make_servable
from adapters.export.trained import ServedBase
from adapters.export.weights import sync_folder, write_adapter
from adapters.manifest import build_manifest, write_manifest
from adapters.probe import Probe, write_probe
from adapters.target import TargetBase
from bases.hub import HUB_ID
from bases.passport import Passport
from bases.resolve import ResolvedBase

_LIBRARIES = ("hotswap-llm", "torch", "transformers", "peft", "trl", "accelerate", "datasets", "safetensors")
# An exact export may differ from the trained model in float32 by rounding; more is a base that was changed.
MAX_EXACT_DIFFERENCE_NATS = 0.01
_NUM_COMPARED_CASES = 4


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written. Errors are relative (Frobenius norm of the module's change, 0 to 1).

    `trained_difference_nats` is the largest difference of a log probability between the trained model and what
    was written, over the tokens of the first probe cases; it holds the rounding of the training's precision.
    `effect_nats` is the largest difference between adapter and base in the probe.
    """

    folder: Path
    digest: str
    rank: int
    alpha: float
    num_parameters: int
    conversions: tuple[str, ...]
    max_relative_error: float
    module_errors: Mapping[str, float]
    trained_difference_nats: float
    effect_nats: float

    @property
    def is_exact(self) -> bool:
        """Whether nothing but rounding separates what was written from what was trained."""
        return self.max_relative_error <= EXACT_ERROR


def export_adapter(
    model: Any,
    *,
    method: str,
    base: ResolvedBase,
    passport: Passport,
    folder: Path,
    probe_prompts: Sequence[Sequence[int]],
    training: Mapping[str, JsonValue],
    max_error: float = 0.05,
    rank: int | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    initial_adapter_folder: Path | None = None,
    probe_cases: int = 16,
    probe_tokens: int = 8,
) -> ExportReport:
    """Write the adapter that `model` learned into the new or empty `folder`, checked, with manifest and probe.

    `model` is a PEFT model or a fully fine-tuned one, unwrapped; it is left as it was. `method` is its name for
    the manifest and the card. `probe_prompts` are token ids as the gateway sends them, best from held-out data.
    `training` goes into the manifest as it is; the card shows its "data", "metrics" and "settings".
    `initial_adapter_folder` is the adapter before the first step, for PiSSA, OLoRA and their kind; without it what
    they took out of the base is recovered from the weights. `max_error`, `rank`, `dtype`: see ExportSettings.

    Raises NotServableError for methods without a LoRA form, ExportError for everything else that cannot be served,
    with the numbers and the way out. Nothing is left in `folder` then.
    """
    import torch

    _expect_empty(folder)
    served_base = ServedBase(base)
    modules = passport.facts.linear_modules
    if hasattr(model, "peft_config"):
        trained = collect_adapter(
            model, linear_modules=modules, base=served_base, initial_adapter_folder=initial_adapter_folder
        )
    else:
        trained = collect_difference(model, linear_modules=modules, base=served_base)
    form = make_servable(trained, rank=rank, max_error=max_error, dtype=getattr(torch, dtype))
    _refuse_no_effect(form)
    with _unfinished(folder) as made:
        write_adapter(made, form, base_name=public_base_name(base), linear_modules=modules)
        probe, difference = _prove(
            model,
            made,
            served_base,
            prompts=probe_prompts,
            fingerprint=passport.fingerprint,
            num_cases=probe_cases,
            num_tokens=probe_tokens,
        )
        _refuse_unlike(form, model, difference)
        write_probe(made, probe)
        manifest = build_manifest(
            made,
            base_fingerprint=passport.fingerprint,
            base_name=base.name,
            libraries=_library_versions(),
            training={**training, "method": method, "export": _export_record(form, difference)},
        )
        write_manifest(made, manifest)
        report = ExportReport(
            folder=folder,
            digest=manifest.digest,
            rank=form.scaling.rank,
            alpha=form.scaling.alpha,
            num_parameters=sum(item.a.numel() + item.b.numel() for item in form.factors.values()),
            conversions=form.conversions,
            max_relative_error=form.max_error,
            module_errors=dict(form.errors),
            trained_difference_nats=difference,
            effect_nats=largest_effect(probe),
        )
        card = render_card(
            manifest=manifest,
            base_reference=public_base_name(base),
            rank=report.rank,
            num_parameters=report.num_parameters,
        )
        (made / CARD_NAME).write_text(card, encoding="utf-8")
        _check(made, base, passport)
        sync_folder(made)
        _put_in_place(made, folder)
    return report


def public_base_name(base: ResolvedBase) -> str:
    """What an adapter may say its base is called: a hub id or a public name, never a path of this machine."""
    match = HUB_ID.fullmatch(base.reference) if base.source == "hub" else None
    return match["repository"] if match is not None else base.name


def _prove(
    model: Any,
    folder: Path,
    base: ServedBase,
    *,
    prompts: Sequence[Sequence[int]],
    fingerprint: str,
    num_cases: int,
    num_tokens: int,
) -> tuple[Probe, float]:
    """(probe of what was written, largest difference of its log probabilities from the trained model's)."""
    from peft import PeftModel

    served = PeftModel.from_pretrained(base.model, folder).eval()
    probe = make_probe(
        served,
        prompts=prompts,
        fingerprint=fingerprint,
        num_cases=num_cases,
        num_tokens=num_tokens,
        end_token_ids=_end_tokens(base.model),
    )
    compared = probe.cases[:_NUM_COMPARED_CASES]
    expected = [Answer(tuple(case.expected_token_ids), tuple(case.adapter_logprobs)) for case in compared]
    with _answering(model):
        found = score_answers(model, [case.prompt_token_ids for case in compared], expected, batch_size=1)
    difference = max(
        abs(one - other)
        for left, right in zip(expected, found, strict=True)
        for one, other in zip(left.logprobs, right.logprobs, strict=True)
    )
    return probe, difference


@contextmanager
def _answering(model: Any) -> Iterator[None]:
    """`model` in evaluation mode with an attention that needs no packing, and afterwards as it was."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    attention = inner.config._attn_implementation
    was_training = model.training
    model.eval()
    if attention not in ("sdpa", "eager"):
        inner.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        if attention not in ("sdpa", "eager"):
            inner.set_attn_implementation(attention)
        model.train(was_training)


def _end_tokens(model: Any) -> frozenset[int]:
    ids = model.generation_config.eos_token_id
    return frozenset(() if ids is None else [ids] if isinstance(ids, int) else ids)


def _refuse_no_effect(form: ServableForm) -> None:
    if not any(bool(item.a.any() and item.b.any()) for item in form.factors.values()):
        raise ExportError(
            "The adapter changes nothing: in every module one of its factors is zero. It was exported before the "
            "first training step, or its learning rate was zero."
        )


def _refuse_unlike(form: ServableForm, model: Any, difference: float) -> None:
    """An exact form that answers otherwise than the trained model stands on another base than it was trained on."""
    import torch

    is_float32 = all(value.dtype == torch.float32 for value in model.parameters())
    if is_float32 and form.max_error <= EXACT_ERROR and difference > MAX_EXACT_DIFFERENCE_NATS:
        raise ExportError(
            f"The adapter on the base does not answer as the trained model does: a log probability differs by "
            f"{difference:.4f} nats, at most {MAX_EXACT_DIFFERENCE_NATS} are rounding. Something beside the "
            "adapter changed in training (weights of the base, buffers, a configuration). Train on the base as it "
            "is served."
        )


def _export_record(form: ServableForm, difference: float) -> dict[str, JsonValue]:
    worst = sorted(form.errors.items(), key=lambda item: -item[1])[:5]
    return {
        "conversions": list(form.conversions),
        "is_exact": form.max_error <= EXACT_ERROR,
        "max_relative_error": form.max_error,
        "worst_modules": {module: error for module, error in worst if error > EXACT_ERROR},
        "trained_difference_nats": difference,
    }


def _library_versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # training on a machine without the serving part
            continue
    return found


def _check(folder: Path, base: ResolvedBase, passport: Passport) -> None:
    target = TargetBase(
        fingerprint=passport.fingerprint,
        name=base.name,
        linear_modules=passport.facts.linear_modules,
        reference=base.reference,
        tied_embeddings=passport.facts.tied_embeddings,
    )
    report = check_adapter(folder, target=target)
    if not report.ok:
        listed = "; ".join(f"{problem.code}: {problem.message}" for problem in report.problems)
        raise ExportError(f"The written adapter does not pass the gateway's check: {listed}")


def _expect_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(
            f"{folder} exists and is not an empty folder; nothing is overwritten. Name a new one."
        )


@contextmanager
def _unfinished(folder: Path) -> Iterator[Path]:
    """A hidden folder beside `folder` that is gone afterwards unless it was put in place."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.unfinished-", dir=folder.parent))
    try:
        made.chmod(0o755)
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _put_in_place(made: Path, folder: Path) -> None:
    try:
        made.rename(folder)
    except OSError as error:
        raise ExportError(f"{folder} cannot be put in place: {error.strerror}. Name a new folder.") from error
