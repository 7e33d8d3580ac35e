"""The algebra of low-rank factors: scaling, padding, joining and cutting without changing what they mean.

A module's change is `scale * b @ a` with a (rank, in_features) and b (out_features, rank), as PEFT and vLLM
apply it. Errors are relative in the Frobenius norm: ||served - exact|| / ||exact||.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Factors:
    """One module's change as `scale * b @ a`; a and b are torch tensors on the CPU."""

    a: Any
    b: Any
    scale: float = 1.0

    @property
    def rank(self) -> int:
        return int(self.a.shape[0])

    def dense(self) -> Any:
        """The change as one float64 matrix (out_features, in_features)."""
        return (self.b.double() @ self.a.double()) * self.scale

    def folded(self) -> Factors:
        """The same change with the scale inside b, so that rank and alpha can be equal."""
        return self if self.scale == 1.0 else Factors(self.a, self.b * self.scale)

    def padded(self, rank: int) -> Factors:
        """The same change with zero rows in a and zero columns in b; raise ValueError when it is too wide."""
        import torch

        missing = rank - self.rank
        if missing < 0:
            raise ValueError(f"factors of rank {self.rank} cannot be padded to rank {rank}")
        if missing == 0:
            return self
        return replace(
            self,
            a=torch.cat([self.a, self.a.new_zeros(missing, self.a.shape[1])], dim=0),
            b=torch.cat([self.b, self.b.new_zeros(self.b.shape[0], missing)], dim=1),
        )

    def minus(self, other: Factors) -> Factors:
        """The difference of two changes of one module, exactly, with the sum of the ranks."""
        return joined([self, other.times(-1.0)])

    def times(self, weight: float) -> Factors:
        """`weight` times the change, exactly: the factors stay as they are."""
        return replace(self, scale=self.scale * weight)

    def cut(self, rank: int) -> Factors:
        """The nearest change of at most that rank, never more than the matrix has; unchanged where it is lower.

        Works on the factors (QR of both, SVD of a rank x rank matrix), never on the whole matrix.
        """
        import torch

        if self.rank <= rank:
            return self
        q_b, r_b = torch.linalg.qr(self.b.double() * self.scale)
        q_a, r_a = torch.linalg.qr(self.a.double().T)
        left, values, right = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
        root = values[:rank].sqrt()
        return Factors(
            (root[:, None] * (right[:rank] @ q_a.T)).to(self.a.dtype),
            ((q_b @ left[:, :rank]) * root).to(self.b.dtype),
        )

    def to(self, dtype: Any) -> Factors:
        """Both tensors in `dtype`, contiguous."""
        return replace(self, a=self.a.to(dtype).contiguous(), b=self.b.to(dtype).contiguous())


@dataclass(frozen=True, slots=True)
class Decomposition:
    """The leading part of a matrix's singular value decomposition, and the norm of what it leaves out.

    `left` is (out, k), `values` (k), `right` (k, in), sorted by falling value; `rest_squared` is the sum of the
    squares of the values beyond the k kept.
    """

    left: Any
    values: Any
    right: Any
    rest_squared: float

    def rank_for(self, max_error: float) -> int | None:
        """The smallest rank (at least 1) whose relative error is at most `max_error`; None beyond the kept."""
        squares = (self.values.double() ** 2).tolist()
        total = sum(squares) + self.rest_squared
        if total == 0.0:
            return 1
        # Summed from the smallest up: with every value kept nothing is left out, not even rounding.
        left_out = [self.rest_squared]
        for square in reversed(squares[1:]):
            left_out.append(left_out[-1] + square)
        for rank, rest in enumerate(reversed(left_out), start=1):
            if rest <= total * max_error**2:
                return rank
        return None

    def factors(self, rank: int) -> Factors:
        """The nearest change of that rank, or of the kept rank where that is smaller."""
        root = self.values[:rank].sqrt()
        return Factors(root[:, None] * self.right[:rank], self.left[:, :rank] * root)


def decompose(delta: Any, *, max_rank: int) -> Decomposition:
    """Decompose the matrix `delta` (out, in), keeping at most `max_rank` values, in float32."""
    import torch

    left, values, right = torch.linalg.svd(delta.float(), full_matrices=False)
    kept = min(max_rank, int(values.shape[0]))
    rest = float((values[kept:].double() ** 2).sum())
    return Decomposition(left[:, :kept].clone(), values[:kept].clone(), right[:kept].clone(), rest)


def joined(changes: Sequence[Factors]) -> Factors:
    """The sum of changes of one module, with the sum of their ranks: [A1; A2] and [s1 B1, s2 B2].

    Nothing is approximated; folding the scales into B rounds each value of B once, and powers of two not at all.
    Raises ValueError where there is nothing to join.
    """
    import torch

    if not changes:
        raise ValueError("no changes to join")
    folded = [change.folded() for change in changes]
    return Factors(
        torch.cat([change.a for change in folded], dim=0), torch.cat([change.b for change in folded], dim=1)
    )


def relative_error(served: Factors, exact: Any) -> float:
    """||served - exact|| / ||exact||; zero where both are zero, infinite where only the exact one is."""
    difference = float((served.dense() - exact.double()).norm())
    norm = float(exact.double().norm())
    if norm == 0.0:
        return 0.0 if difference == 0.0 else float("inf")
    return difference / norm


def are_uniform(factors: Sequence[Factors]) -> bool:
    """Whether all have one rank and one scale."""
    return len({(item.rank, item.scale) for item in factors}) <= 1
