"""Joins adapters into one that adds up what they do: [A1; A2], [s1 B1, s2 B2] in every module.

The sum of low-rank changes is a low-rank change of the summed rank, so nothing is approximated, and what is written
is held against PEFT with all of the adapters active at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters.compose.part import Part
from adapters.config_rules import ENGINE_RANKS
from adapters.errors import ExportError
from adapters.export.export import write_trained
from adapters.export.factors import Factors, joined
from adapters.export.report import ExportReport
from adapters.export.settings import ExportSettings
from adapters.export.trained import ModuleChange, ServedBase, Trained
from bases.passport import Passport
from bases.resolve import ResolvedBase


def compose_adapters(
    parts: Sequence[Part],
    *,
    base: ResolvedBase,
    passport: Passport,
    folder: Path,
    default_prompts: Sequence[Sequence[int]],
    settings: ExportSettings,
) -> ExportReport:
    """Write what `parts` add up to into the new or empty `folder`, with manifest and probe for `base`.

    The probe's prompts are those of the parts' own probes, in turn, then `default_prompts` (token ids). Raises
    ExportError with the numbers where it cannot be served.
    """
    changes = joined_changes(parts)
    rank = max(change.rank for change in changes.values())
    if settings.rank is None and rank > ENGINE_RANKS[-1]:
        raise ExportError(
            f"Joined, the adapters have rank {rank}, and the engine goes up to {ENGINE_RANKS[-1]}. Join fewer, or "
            "cut the sum with --rank, which is no longer exact and says by how much."
        )
    return write_trained(
        Trained(
            changes=tuple(ModuleChange(module, factors) for module, factors in sorted(changes.items())),
            notes=_notes(parts),
        ),
        _all_active(parts, base),
        method="joined",
        base=ServedBase(base),
        passport=passport,
        folder=folder,
        probe_prompts=[*_in_turn([part.prompts for part in parts]), *default_prompts],
        training={
            "joined": {
                part.label: {
                    "digest": part.digest,
                    "weight": part.weight,
                    "rank": max(factors.rank for factors in part.factors.values()),
                }
                for part in parts
            }
        },
        **settings.model_dump(),
    )


def joined_changes(parts: Sequence[Part]) -> dict[str, Factors]:
    """The joined change of every module that at least one part adapts."""
    modules = {module for part in parts for module in part.factors}
    return {
        module: joined([part.factors[module].times(part.weight) for part in parts if module in part.factors])
        for module in modules
    }


def _notes(parts: Sequence[Part]) -> tuple[str, ...]:
    strengths = ", ".join(
        part.label if part.weight == 1.0 else f"{part.label} at {part.weight:g} of its strength"
        for part in parts
    )
    return (f"the sum of {strengths}", *(note for part in parts for note in part.notes))


def _all_active(parts: Sequence[Part], base: ResolvedBase) -> Any:
    """The base under PEFT with every part active at its weight: what the joined adapter has to answer like."""
    from peft import PeftModel
    from peft.tuners.lora.layer import LoraLayer

    names = [f"part{number}" for number in range(len(parts))]
    model = PeftModel.from_pretrained(ServedBase(base).model, parts[0].folder, adapter_name=names[0])
    for name, part in zip(names[1:], parts[1:], strict=True):
        model.load_adapter(part.folder, adapter_name=name)
    model.base_model.set_adapter(names, inference_mode=True)
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            for name, part in zip(names, parts, strict=True):
                if name in layer.scaling:
                    layer.scaling[name] *= part.weight
    return model.eval()


def _in_turn(prompts: Sequence[Sequence[Sequence[int]]]) -> list[Sequence[int]]:
    """The first of each, then the second of each, and so on."""
    rounds = itertools.zip_longest(*prompts)
    return [prompt for one in rounds for prompt in one if prompt is not None]
