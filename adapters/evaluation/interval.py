"""95 % intervals: Wilson's for shares, the paired percentile bootstrap for everything else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# From weights [draws, cases] (how often each case was drawn) to one value a draw: [draws].
Statistic = Callable[["NDArray[np.float64]"], "NDArray[np.float64]"]

CONFIDENCE = 0.95
_NORMAL_QUANTILE = 1.959963984540054  # of 0.975
_MAX_CHUNK_WEIGHTS = 4_000_000
_FEWEST_USABLE_DRAWS = 0.5  # of all; fewer and the draws that have a value are no fair sample


def wilson(hits: int, total: int, *, quantile: float = _NORMAL_QUANTILE) -> tuple[float, float] | None:
    """Wilson's score interval of a share; None for no cases. https://doi.org/10.1080/01621459.1927.10502953

    `quantile`: standard deviations of the normal distribution to either side.
    """
    if total == 0:
        return None
    z2 = quantile**2
    share = hits / total
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = quantile / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    # At 0 and at 1 the formula gives the bound itself, but for rounding.
    low = 0.0 if hits == 0 else max(0.0, centre - half)
    high = 1.0 if hits == total else min(1.0, centre + half)
    return low, high


def resamples(num_cases: int, *, draws: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Weights of a bootstrap, in chunks [some draws, num_cases]; the same arguments give the same weights."""
    import numpy as np

    generator = np.random.default_rng(seed)
    chunk = max(1, _MAX_CHUNK_WEIGHTS // max(1, num_cases))
    equal = np.full(num_cases, 1.0 / num_cases)
    for start in range(0, draws, chunk):
        size = min(chunk, draws - start)
        yield generator.multinomial(num_cases, equal, size=size).astype(np.float64)


def value_of(statistic: Statistic, num_cases: int) -> float | None:
    """The statistic with every case counted once; None where it has no value."""
    import numpy as np

    value = float(statistic(np.ones((1, num_cases)))[0])
    return value if math.isfinite(value) else None


def bootstrap(statistic: Statistic, num_cases: int, *, draws: int, seed: int) -> tuple[float, float] | None:
    """Percentile interval of a statistic; None where most draws give it no value."""
    import numpy as np

    if num_cases == 0:
        return None
    values = np.concatenate([statistic(weights) for weights in resamples(num_cases, draws=draws, seed=seed)])
    values = values[np.isfinite(values)]
    if len(values) < draws * _FEWEST_USABLE_DRAWS:
        return None
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def paired_difference(left: Statistic, right: Statistic) -> Statistic:
    """`right` minus `left` on the same draws, so that what both find hard cancels out."""
    return lambda weights: right(weights) - left(weights)
