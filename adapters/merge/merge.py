"""Makes a base of a base and an adapter: their weights added in float32, read back and asked before they count."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters.errors import MergeError
from adapters.export.load import load_trained
from adapters.export.probe_writer import choose_candidates
from adapters.merge.checkpoint import write_checkpoint
from adapters.merge.embeddings import untie_adapted
from adapters.merge.fit import FittingAdapter
from adapters.merge.proof import ask_adapted, compare_merged
from adapters.merge.report import MergeReport
from adapters.merge.settings import MergeSettings
from bases.folder import check_folder
from bases.lineage import BaseStep, ParentBase, extend_lineage, write_lineage
from bases.passport import Passport
from bases.place import made_in_place
from bases.progress import Progress
from bases.resolve import ResolvedBase
from bases.weights import hash_weights

_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def merge_adapter(
    adapter: FittingAdapter,
    *,
    base: ResolvedBase,
    passport: Passport,
    folder: Path,
    prompts: Sequence[Sequence[int]],
    settings: MergeSettings,
    initial_adapter_folder: Path | None = None,
    progress: Progress,
) -> MergeReport:
    """Write `base` with `adapter` merged in into the new `folder`.

    `prompts` (token ids) are asked before and after; some that the adapter was trained for should be among them.
    Raises MergeError, ExportError for adapters that cannot be read, BaseConversionError for a folder that cannot be
    made. Nothing is left behind then.
    """
    dtype = _dtype(settings, passport)
    with made_in_place(folder, progress=progress) as partial:
        _expect_space(partial, passport, dtype)
        progress(f"Reading {base.name} and {adapter.label}")
        model = load_trained(adapter.folder, base=base, initial_adapter_folder=initial_adapter_folder)
        tied = frozenset(passport.facts.embeddings) if passport.facts.tied_embeddings else frozenset()
        untied = untie_adapted(model, tied)
        progress(f"Asking base and adapter {settings.prompts} prompts")
        expected = ask_adapted(
            model, choose_candidates(prompts, max_candidates=settings.prompts), num_tokens=settings.tokens
        )
        progress("Merging")
        merged = _merged(model, dtype)
        del model
        progress(f"Writing the weights ({dtype})")
        write_checkpoint(merged, partial, parent=base.path, dtype=dtype, untied=bool(untied))
        del merged
        progress("Reading it back and asking it the same")
        check_folder(partial)
        fidelity, difference = compare_merged(_reloaded(partial, base), expected, dtype=dtype)
        step = BaseStep(
            kind="merge",
            parent=ParentBase(fingerprint=passport.fingerprint, name=base.name),
            adapter=adapter.label,
            details={
                "adapter_digest": adapter.digest,
                "dtype": dtype,
                "untied": list(untied),
                "difference_nats": difference,
                "effect_nats": expected.effect_nats,
                "equal_answers": f"{fidelity.num_equal} of {fidelity.num_prompts}",
            },
        )
        write_lineage(partial, extend_lineage(base.path, step))
        weight_bytes = hash_weights(partial)[1]
    return MergeReport(
        folder=folder,
        adapter=adapter.label,
        base=base.name,
        dtype=dtype,
        weight_bytes=weight_bytes,
        difference_nats=difference,
        effect_nats=expected.effect_nats,
        fidelity=fidelity,
        notes=tuple(_notes(adapter, base, untied)),
    )


def _dtype(settings: MergeSettings, passport: Passport) -> str:
    dtype = passport.facts.dtype if settings.dtype == "auto" else settings.dtype
    if dtype not in _ITEM_BYTES:
        raise MergeError(
            f"The base is stored as {dtype}, which a merge does not write. Say --dtype float32 or --dtype bfloat16."
        )
    return dtype


def _expect_space(folder: Path, passport: Passport, dtype: str) -> None:
    needed = passport.facts.num_parameters * _ITEM_BYTES[dtype]
    free = shutil.disk_usage(folder).free
    if free < 1.05 * needed:
        raise MergeError(
            f"The merged base takes {needed / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free where it goes. Make "
            "room, or name another place with --out."
        )


def _merged(model: Any, dtype: str) -> Any:
    import torch

    with warnings.catch_warnings():
        # Said of names alone; the tensors are apart already where that matters.
        warnings.filterwarnings("ignore", message="Model with `tie_word_embeddings=True`")
        warnings.filterwarnings("ignore", message="Input and output embeddings are no longer tied")
        try:
            merged = model.merge_and_unload(safe_merge=True)
        except (ValueError, NotImplementedError, AttributeError) as error:
            raise MergeError(f"PEFT cannot merge the adapter: {error}") from error
    return merged.to(getattr(torch, dtype))


def _reloaded(folder: Path, base: ResolvedBase) -> Any:
    """The written base as it will be loaded, computing in float32."""
    import torch

    from adapters.training.base_model import load_training_model

    written = ResolvedBase(base.name, str(folder), folder, None, "folder")
    return load_training_model(written, dtype=torch.float32).model.eval()


def _notes(adapter: FittingAdapter, base: ResolvedBase, untied: tuple[str, ...]) -> list[str]:
    notes = []
    if untied:
        notes.append(
            f"the adapter changes {', '.join(untied)}: the embeddings, which {base.name} ties, are stored apart"
        )
    if not adapter.is_proven:
        notes.append(f"no manifest says that {adapter.label} was trained on {base.name}")
    return notes
