"""From a trained model to a folder that the engine serves exactly: the one way an adapter leaves training.

What is saved is read back through stock PEFT on the original base before it counts as exported: the probe file
is made from it, and its answers are held against the trained model's.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from adapters.check import check_adapter
from adapters.errors import ExportError
from adapters.export.collect import collect_adapter
from adapters.export.difference import collect_difference
from adapters.export.model_card import render_card
from adapters.export.probe_writer import largest_effect
from adapters.export.proof import prove_written, refuse_unlike
from adapters.export.publish import CARD_NAME
from adapters.export.report import ExportReport
from adapters.export.servable import EXACT_ERROR, ServableForm, make_servable
from adapters.export.trained import ServedBase, Trained
from adapters.export.weights import sync_folder, write_adapter
from adapters.manifest import build_manifest, write_manifest
from adapters.probe import write_probe
from adapters.target import TargetBase, describe_target
from bases.disk import check_writable, is_unwritable, why_unwritten
from bases.hub import HUB_ID
from bases.passport import Passport
from bases.resolve import ResolvedBase

_LIBRARIES = ("hotswap-llm", "torch", "transformers", "peft", "trl", "accelerate", "datasets", "safetensors")


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
    check_place(folder)
    served_base = ServedBase(base)
    target = describe_target(base, passport)
    modules = [name for name in target.linear_modules if name not in target.unserved_modules]
    if hasattr(model, "peft_config"):
        trained = collect_adapter(
            model, linear_modules=modules, base=served_base, initial_adapter_folder=initial_adapter_folder
        )
    else:
        trained = collect_difference(model, linear_modules=modules, base=served_base)
    return write_trained(
        trained,
        model,
        method=method,
        base=served_base,
        passport=passport,
        folder=folder,
        probe_prompts=probe_prompts,
        training=training,
        max_error=max_error,
        rank=rank,
        dtype=dtype,
        probe_cases=probe_cases,
        probe_tokens=probe_tokens,
    )


def write_trained(
    trained: Trained,
    model: Any,
    *,
    method: str,
    base: ServedBase,
    passport: Passport,
    folder: Path,
    probe_prompts: Sequence[Sequence[int]],
    training: Mapping[str, JsonValue],
    max_error: float,
    rank: int | None,
    dtype: Literal["float32", "bfloat16"],
    probe_cases: int,
    probe_tokens: int,
) -> ExportReport:
    """Write the changes `trained` as `export_adapter` does; `model` is what they must answer like.

    `base` holds the written adapter afterwards.
    """
    import torch

    check_place(folder)
    resolved = base.resolved
    target = describe_target(resolved, passport)
    form = make_servable(trained, rank=rank, max_error=max_error, dtype=getattr(torch, dtype))
    _refuse_no_effect(form)
    with _unfinished(folder) as made:
        write_adapter(made, form, base_name=public_base_name(resolved), linear_modules=target.linear_modules)
        probe, difference = prove_written(
            model,
            made,
            base,
            prompts=probe_prompts,
            fingerprint=passport.fingerprint,
            num_cases=probe_cases,
            num_tokens=probe_tokens,
        )
        refuse_unlike(form, model, difference)
        write_probe(made, probe)
        manifest = build_manifest(
            made,
            base_fingerprint=passport.fingerprint,
            base_name=resolved.name,
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
            base_reference=public_base_name(resolved),
            rank=report.rank,
            num_parameters=report.num_parameters,
        )
        (made / CARD_NAME).write_text(card, encoding="utf-8")
        _check(made, target)
        sync_folder(made)
        _put_in_place(made, folder)
    return report


def public_base_name(base: ResolvedBase) -> str:
    """What an adapter may say its base is called: a hub id or a public name, never a path of this machine."""
    match = HUB_ID.fullmatch(base.reference) if base.source == "hub" else None
    return match["repository"] if match is not None else base.name


def _refuse_no_effect(form: ServableForm) -> None:
    if not any(bool(item.a.any() and item.b.any()) for item in form.factors.values()):
        raise ExportError(
            "The adapter changes nothing: in every module one of its factors is zero. It was exported before the "
            "first training step, or its learning rate was zero."
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


def _check(folder: Path, target: TargetBase) -> None:
    report = check_adapter(folder, target=target)
    if not report.ok:
        listed = "; ".join(f"{problem.code}: {problem.message}" for problem in report.problems)
        raise ExportError(f"The written adapter does not pass the gateway's check: {listed}")


def check_place(folder: Path) -> None:
    """Raise ExportError unless `folder` is empty, or new and can be made."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ExportError(
                f"{folder} exists and is not an empty folder; nothing is overwritten. Name a new one."
            )
        check_writable(folder.parent)
    except OSError as error:
        raise ExportError(f"{folder} cannot be made: {error.strerror}. Name another folder.") from error


@contextmanager
def _unfinished(folder: Path) -> Iterator[Path]:
    """A hidden folder beside `folder` that is gone afterwards unless it was put in place. Raises ExportError."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.unfinished-", dir=folder.parent))
    except OSError as error:
        raise ExportError(f"{folder} cannot be made: {error.strerror}. Name another folder.") from error
    try:
        made.chmod(0o755)
        yield made
    except OSError as error:
        if not is_unwritable(error):
            raise
        raise ExportError(
            f"The adapter cannot be written below {folder.parent}: {why_unwritten(error)}"
        ) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _put_in_place(made: Path, folder: Path) -> None:
    try:
        made.rename(folder)
    except OSError as error:
        raise ExportError(f"{folder} cannot be put in place: {error.strerror}. Name a new folder.") from error
