"""The closed form over all layers of a quantised base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.export.factors import Factors
from adapters.export.trained import oriented
from bases.progress import Progress
from quantize.recovery.closed_form import best_factors, weighted_square
from quantize.recovery.moments import gather_moments
from quantize.recovery.rescaling import rounding_error


@dataclass(frozen=True, slots=True)
class ClosedForm:
    """Factors of each module, and the share of its squared output error that they take away (0 without error)."""

    factors: Mapping[str, Factors]
    shares: Mapping[str, float]

    @property
    def mean_share(self) -> float:
        """Mean over the modules that had an error."""
        counted = [share for module, share in self.shares.items() if self.factors[module].b.any()]
        return sum(counted) / len(counted) if counted else 0.0


def closed_form(
    original: Any,
    served: Any,
    weights: Mapping[str, Any],
    rows: Sequence[Sequence[int]],
    *,
    rank: int,
    progress: Progress,
) -> ClosedForm:
    """The best factors of `rank` for every module of `weights` (name -> dequantised weight [out, in]).

    `served` reads the rows as the engine computes them, activations rounded where the scheme rounds them, and gives
    the second moments of its layers' inputs. The error is that of the weights alone: what the rounding of
    activations adds is not in it.
    """
    moments = gather_moments(served, tuple(weights), rows, progress=progress)
    progress(f"Solving {len(weights)} layers at rank {rank}")
    factors: dict[str, Factors] = {}
    shares: dict[str, float] = {}
    for owner, modules in moments.groups().items():
        moment = moments.sums.pop(owner) / moments.num_tokens
        for module in modules:
            layer = original.get_submodule(module)
            error = rounding_error(oriented(layer, layer.weight.detach()), weights[module])
            factors[module] = best_factors(error, moment, rank)
            lost = weighted_square(error, moment)
            left = weighted_square(error - factors[module].dense(), moment)
            shares[module] = 1.0 - left / lost if lost > 0 else 0.0
    return ClosedForm(factors, shares)
