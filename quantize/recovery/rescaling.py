"""What rounding took from the weights of a layer, also where the quantiser moved scales between layers first.

SmoothQuant (https://arxiv.org/abs/2211.10438) and AWQ (https://arxiv.org/abs/2306.00978) multiply columns of a
layer and divide what comes before it by the same numbers: the model computes the same, and its weights are no
longer the original's. Their quantised form is near diag(rows) W diag(columns). An adapter of the original that is
put on such a base sees other inputs than in training.
"""

from __future__ import annotations

from typing import Any

# Rounding to 4 bits moves a fitted scale by some 0.003; scales moved on purpose differ by tens of percent.
_MOVED = 0.05
_ROUNDS = 16


def rounding_error(original: Any, quantised: Any) -> Any:
    """E [out, in] in float64 such that `quantised` + E computes what `original` computes in its own model.

    The plain difference where no scales were moved; otherwise they are fitted by least squares, which hides at
    most one part in `out` and one in `in` of the error.
    """
    original, quantised = original.double(), quantised.double()
    rows, columns = fitted_scales(original, quantised)
    return original * rows * columns - quantised


def has_moved_scales(original: Any, quantised: Any) -> bool:
    """Whether the quantiser moved scales into or out of this layer."""
    return any(_is_moved(scales) for scales in fitted_scales(original.double(), quantised.double()))


def fitted_scales(original: Any, quantised: Any) -> tuple[Any, Any]:
    """(rows [out, 1], columns [1, in]) by which `original` was multiplied; exactly 1 where it was not."""
    import torch

    ones = (torch.ones_like(original[:, :1]), torch.ones_like(original[:1]))
    columns, rows = _fit(original, quantised, dim=0), _fit(original, quantised, dim=1)
    if not _is_moved(columns) and not _is_moved(rows):
        return ones
    rows = ones[0]
    for _ in range(_ROUNDS):
        # Rounding is relative to a row or a part of one, so that all rows get the same say.
        columns = _fit(original, quantised / rows, dim=0)
        rows = _fit(original * columns, quantised, dim=1)
    level = rows.median()
    rows, columns = rows / level, columns * level
    if not _is_moved(rows):  # columns alone, as SmoothQuant does it
        return ones[0], _fit(original, quantised, dim=0)
    if not _is_moved(columns):
        return _fit(original, quantised, dim=1), ones[1]
    return rows, columns


def _fit(original: Any, quantised: Any, *, dim: int) -> Any:
    """The factors, one per slice along `dim`, that bring `original` nearest to `quantised`; 1 for empty slices."""
    import torch

    size = (original * original).sum(dim, keepdim=True)
    product = (original * quantised).sum(dim, keepdim=True)
    return torch.where((size > 0) & (product != 0), product / size.clamp_min(1e-300), 1.0)


def _is_moved(scales: Any) -> bool:
    """Whether a twentieth of the scales or more are off 1 by more than rounding explains."""
    import torch

    return float(torch.quantile((scales - 1.0).abs().flatten(), 0.95)) > _MOVED
