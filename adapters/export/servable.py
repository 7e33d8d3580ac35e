"""From what was learned to the one form that is written: a LoRA with one rank and one scaling for all modules."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from adapters.config_rules import ENGINE_RANKS
from adapters.errors import ExportError
from adapters.export.factors import Decomposition, Factors, are_uniform, decompose, relative_error
from adapters.export.trained import DeclaredScaling, ModuleChange, Trained

MAX_RANK = ENGINE_RANKS[-1]
GATEWAY_RANK = 64  # what a gateway takes unless it is started with another max_lora_rank
# An exact conversion differs by the rounding of float32 alone.
EXACT_ERROR = 1e-5
# Up to here a rank costs so little that an exact form is always taken.
_CHEAP_RANK = 16


@dataclass(frozen=True, slots=True)
class ServableForm:
    """What is written: `scaling` holds for all modules; `factors` have its rank; `errors` are relative."""

    scaling: DeclaredScaling
    factors: Mapping[str, Factors]
    errors: Mapping[str, float]
    conversions: tuple[str, ...]

    @property
    def max_error(self) -> float:
        return max(self.errors.values(), default=0.0)


def make_servable(trained: Trained, *, rank: int | None, max_error: float, dtype: Any) -> ServableForm:
    """The servable form of `trained`, with the measured error of each module.

    `rank` asks for a rank; None keeps the trained one and, where the change is no low-rank matrix, takes the
    smallest rank within `max_error`. `dtype` is the torch type of the written tensors. Raises ExportError with
    the worst modules and the remedies when a module's error is above `max_error`.
    """
    _refuse_non_finite(trained.changes)
    low_rank, found = _low_rank(trained.changes, rank, max_error)
    notes = [*trained.notes, *found]
    plain = [
        change.factors for change in trained.changes if change.factors is not None and change.exact is None
    ]
    declared = trained.declared
    if declared is not None and declared.rank <= MAX_RANK and rank in (None, declared.rank):
        scaling = declared
        served = {module: factors.to(dtype) for module, factors in low_rank.items()}
    else:
        folded = {module: factors.folded() for module, factors in low_rank.items()}
        if len(plain) == len(trained.changes) and not are_uniform(plain):
            notes.append("ranks and scalings of the modules made one: scale folded into B, padded with zeros")
        wanted = rank or max(factors.rank for factors in folded.values())
        if wanted > MAX_RANK:
            notes.append(f"rank {wanted} cut to the engine's {MAX_RANK}")
            wanted = MAX_RANK
        served = {module: factors.cut(wanted).padded(wanted).to(dtype) for module, factors in folded.items()}
        scaling = DeclaredScaling(wanted, float(wanted), rslora=False)
    if scaling.rank > GATEWAY_RANK:
        fitting = next(size for size in ENGINE_RANKS if size >= scaling.rank)
        notes.append(f"rank {scaling.rank} needs a gateway started with --max-lora-rank {fitting}")
    errors = _measure(trained.changes, served, scaling)
    form = ServableForm(scaling, served, errors, tuple(notes))
    _refuse_inexact(form, max_error)
    return form


def _refuse_non_finite(changes: tuple[ModuleChange, ...]) -> None:
    for change in changes:
        tensors = (change.factors.a, change.factors.b) if change.factors is not None else (change.matrix(),)
        if not all(bool(tensor.isfinite().all()) for tensor in tensors):
            raise ExportError(
                f"{change.module} holds values that are NaN or infinite: the training diverged. Lower the learning "
                "rate, or train in a wider precision."
            )


def _low_rank(
    changes: tuple[ModuleChange, ...], rank: int | None, max_error: float
) -> tuple[dict[str, Factors], list[str]]:
    """Factors for every module, decomposing those that have none or none good enough."""
    decomposed: dict[str, Decomposition] = {}
    factors: dict[str, Factors] = {}
    for change in changes:
        if change.factors is not None and (
            change.exact is None or relative_error(change.factors, change.exact()) <= max_error
        ):
            factors[change.module] = change.factors
        elif change.exact is not None:
            decomposed[change.module] = decompose(change.exact(), max_rank=rank or MAX_RANK)
    if not decomposed:
        return factors, []
    chosen = rank or _choose_rank(decomposed.values(), max_error)
    for module, item in decomposed.items():
        factors[module] = item.factors(chosen)
    ordered = {change.module: factors[change.module] for change in changes}
    note = f"{len(decomposed)} modules approximated by singular value decomposition at rank {chosen}"
    return ordered, [note]


def _choose_rank(decomposed: Collection[Decomposition], max_error: float) -> int:
    """The smallest rank within the limit for every module; some more where that makes all of them exact."""
    sufficient = max(item.rank_for(max_error) or MAX_RANK for item in decomposed)
    exact = max(item.rank_for(EXACT_ERROR) or MAX_RANK for item in decomposed)
    return exact if exact <= max(2 * sufficient, _CHEAP_RANK) else sufficient


def _measure(
    changes: tuple[ModuleChange, ...], served: Mapping[str, Factors], scaling: DeclaredScaling
) -> dict[str, float]:
    scale = scaling.alpha / (scaling.rank**0.5 if scaling.rslora else scaling.rank)
    errors = {}
    for change in changes:
        written = Factors(served[change.module].a, served[change.module].b, scale)
        unchanged = change.exact is None and change.factors is not None and _is_same(written, change.factors)
        errors[change.module] = 0.0 if unchanged else relative_error(written, change.matrix())
    return errors


def _is_same(written: Factors, trained: Factors) -> bool:
    import torch

    return (
        written.scale == trained.scale
        and torch.equal(written.a, trained.a)
        and torch.equal(written.b, trained.b)
    )


def _refuse_inexact(form: ServableForm, max_error: float) -> None:
    worst = sorted(form.errors.items(), key=lambda item: -item[1])
    if not worst or worst[0][1] <= max_error:
        return
    above = sum(error > max_error for _, error in worst)
    shown = ", ".join(f"{module} {error:.1%}" for module, error in worst[:4])
    raise ExportError(
        f"What can be served differs too much from what was trained: in {above} of {len(worst)} modules the change "
        f"is off by more than {max_error:.1%} at rank {form.scaling.rank} (worst: {shown}). "
        f"Allow a higher rank (at most {MAX_RANK}), raise max_error if the written adapter evaluates well enough, "
        "or train with LoRA, rsLoRA, PiSSA or AdaLoRA, which are written exactly."
    )
