"""The best low-rank change of one linear layer, in closed form.

With inputs X [in, tokens] and what rounding took from the weights, E = W - W_quantised [out, in], the B A of rank r
that minimises ||(E - B A) X|| in the Frobenius norm. EoRA (https://arxiv.org/abs/2410.21271) and QERA
(https://arxiv.org/abs/2410.06040) factor the second moment S = X X^T = L L^T, cut the singular value decomposition
of E L after r values, U D V^T, and undo L: B A = U D V^T L^-1.

The same matrix comes without an inverse. The cut decomposition is the projection U U^T E L, so that B A = U U^T E,
where U holds the leading eigenvectors of E S E^T. That exists for a singular S too, and needs no damping.
"""

from __future__ import annotations

from typing import Any

from adapters.export.factors import Factors


def best_factors(error: Any, moment: Any, rank: int) -> Factors:
    """Factors of at most `rank` for `error` [out, in] under the inputs' second moment [in, in], in any scale.

    Computed in float64, given in float32. Both factors of a direction are equally long, so that neither learns
    faster than the other. Nothing is left of the weighted error when `rank` reaches that of `error`.
    """
    import torch

    error, moment = error.double(), moment.double()
    out_features, in_features = error.shape
    if out_features <= in_features:
        _, vectors = torch.linalg.eigh(error @ moment @ error.T)
    else:  # the same within the column space of E, where all eigenvectors that count lie
        basis, core = torch.linalg.qr(error)
        vectors = basis @ torch.linalg.eigh(core @ moment @ core.T).eigenvectors
    left = vectors[:, -min(rank, out_features, in_features) :].flip(1)  # [out, rank], the largest first
    right = left.T @ error  # [rank, in]
    lengths = right.norm(dim=1).sqrt()
    shares = torch.where(lengths > 0, 1.0 / lengths.clamp_min(1e-150), 0.0)
    return Factors((right * shares[:, None]).float().contiguous(), (left * lengths).float().contiguous())


def weighted_square(change: Any, moment: Any) -> float:
    """||change X||^2 in the Frobenius norm, for `change` [out, in] and the second moment of X."""
    change = change.double()
    return float(((change @ moment.double()) * change).sum())
