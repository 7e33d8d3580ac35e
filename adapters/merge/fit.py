"""What is refused before anything is loaded: a base that cannot be merged into, an adapter that is not its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapters.check import check_adapter
from adapters.errors import MergeError
from adapters.name import SHORT_DIGEST_LENGTH
from adapters.published import FoundAdapter
from adapters.target import describe_target
from adapters.training.base_model import quantisation_of
from bases.passport import Passport
from bases.resolve import ResolvedBase

# Findings of the check that no merge may pass over. The others say that an adapter cannot be served per request
# (DoRA, trained embeddings, a high rank), which a merged one need not be.
_FATAL = frozenset(
    {
        "base_mismatch",
        "config_missing",
        "dtype_unsupported",
        "hash_mismatch",
        "manifest_invalid",
        "non_finite",
        "not_a_folder",
        "probe_invalid",
        "safetensors_invalid",
        "unreadable",
        "unsafe_file",
        "weights_missing",
        "weights_pickle_only",
        "weights_sharded",
    }
)


@dataclass(frozen=True, slots=True)
class FittingAdapter:
    """An adapter that belongs to the base, as far as its files tell.

    `label` is name@digest, short. `is_proven` says that a manifest names this base.
    """

    label: str
    folder: Path
    digest: str | None
    is_proven: bool


def check_fit(found: FoundAdapter, base: ResolvedBase, passport: Passport) -> FittingAdapter:
    """Raise MergeError with every reason why `found` cannot be merged into `base`."""
    method = quantisation_of(base)
    if method is not None:
        raise MergeError(
            f"The base {base.name} is quantised ({method}): its rounded weights have no place for an adapter's "
            "small changes. Merge into the base that it was quantised from, then quantise the result."
        )
    report = check_adapter(found.folder, target=describe_target(base, passport))
    problems = [problem.message for problem in report.problems if problem.code in _FATAL]
    if problems:
        raise MergeError(f"{found.name} cannot be merged into {base.name}: {'; '.join(problems)}")
    digest = report.facts.digest
    return FittingAdapter(
        label=f"{found.name}@{digest[:SHORT_DIGEST_LENGTH]}" if digest is not None else found.name,
        folder=found.folder,
        digest=digest,
        is_proven=report.facts.has_manifest,
    )
