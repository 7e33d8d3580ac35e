"""One adapter of those that are joined: checked, and read as its factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.check import check_adapter
from adapters.errors import ExportError
from adapters.export.factors import Factors
from adapters.export.plain_lora import read_factors
from adapters.name import SHORT_DIGEST_LENGTH
from adapters.probe import read_probe
from adapters.published import FoundAdapter
from adapters.report import CheckReport
from adapters.target import TargetBase

# Warnings of the check that hold for what is joined as well.
_KEPT_WARNINGS = frozenset({"base_quantised", "base_name_differs"})


@dataclass(frozen=True, slots=True)
class Part:
    """An adapter that can be served on the base, and how strongly it goes in.

    `label` is name@digest, short. `prompts` are the token ids of its own probe, most telling first. `notes` are
    sentences about its fit to the base.
    """

    label: str
    folder: Path
    digest: str
    weight: float
    factors: Mapping[str, Factors]
    prompts: Sequence[Sequence[int]]
    notes: tuple[str, ...]


def read_parts(found: Sequence[FoundAdapter], weights: Sequence[float], target: TargetBase) -> list[Part]:
    """Read every adapter; raise ExportError with what is wrong with all of them."""
    reports = [check_adapter(one.folder, target=target) for one in found]
    problems = [
        f"  {one.name}: {problem.message}"
        for one, report in zip(found, reports, strict=True)
        for problem in report.problems
    ]
    if problems:
        raise ExportError(
            "\n".join(
                [
                    f"What is joined has to be servable on {target.name}; `hotswap adapters export` makes what was "
                    "trained otherwise servable:",
                    *problems,
                ]
            )
        )
    parts = [_read(one, report, weight) for one, report, weight in zip(found, reports, weights, strict=True)]
    twice = {part.label for part in parts if sum(part.digest == other.digest for other in parts) > 1}
    if twice:
        raise ExportError(
            f"{', '.join(sorted(twice))} would be joined with itself. For twice its strength give it once, with "
            "--weights."
        )
    return parts


def _read(found: FoundAdapter, report: CheckReport, weight: float) -> Part:
    digest = report.facts.digest
    if digest is None:  # cannot be, once the check is passed
        raise ExportError(f"The adapter in {found.folder} has no digest. Copy it again.")
    probe = read_probe(found.folder)
    return Part(
        label=f"{found.name}@{digest[:SHORT_DIGEST_LENGTH]}",
        folder=found.folder,
        digest=digest,
        weight=weight,
        factors=read_factors(found.folder),
        prompts=[case.prompt_token_ids for case in probe.cases] if probe is not None else [],
        notes=tuple(
            f"{found.name}: {warning.message}"
            for warning in report.warnings
            if warning.code in _KEPT_WARNINGS
        ),
    )
