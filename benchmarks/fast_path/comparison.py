"""Compares answers with the reference's, and holds both against the exact result.

Where a token differs, rounding may have decided. If the reference is off by at most e on either of two candidates,
and the other side rounds no worse, then both can only choose differently where the exact log probabilities of the
two lie within 2 e. So a tie is measured, not chosen: e is the reference's own largest error against the exact
result, on which the side under test has no influence.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.fast_path.reference import Answered, Judged

_TIE_CANDIDATES = 2  # whose errors make the bound: the chosen token and the one that could have been


@dataclass(frozen=True, slots=True)
class Parting:
    """Where an answer leaves the reference's. `gap_nats` is None for a token the reference did not think of."""

    number: int
    adapter: str | None
    position: int
    reference_token: int
    found_token: int
    gap_nats: float | None  # exact: how far the reference's token lies above the found one
    is_tie: bool


@dataclass(frozen=True, slots=True)
class Spread:
    """Absolute differences in nats."""

    mean: float
    largest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of none: zeros."""
        return cls(sum(values) / len(values), max(values)) if values else cls(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one side against the reference. Spreads count chosen tokens with the same text before them."""

    num_answers: int
    num_tokens: int
    tie_nats: float
    partings: tuple[Parting, ...]
    difference: Spread  # from the reference
    reference_error: Spread  # from the exact result, of the same tokens
    found_error: Spread
    share_nearer: float  # of these tokens: the found side is nearer to the exact result than the reference

    @property
    def num_equal(self) -> int:
        return self.num_answers - len(self.partings)

    @property
    def num_ties(self) -> int:
        return sum(parting.is_tie for parting in self.partings)

    @property
    def share_equal(self) -> float:
        return self.num_equal / self.num_answers

    @property
    def is_equal(self) -> bool:
        """Whether every answer is the same or parts at a tie."""
        return self.num_ties == len(self.partings)


def tie_bound(pairs: Iterable[tuple[Answered, Judged]]) -> float:
    """Twice the reference's largest error, in nats, over its chosen tokens and their runners-up."""
    errors = [
        abs(found - exact)
        for answer, judged in pairs
        for row, exact_row in zip(answer.logprobs, judged.logprobs, strict=True)
        for found, exact in zip(row[:_TIE_CANDIDATES], exact_row[:_TIE_CANDIDATES], strict=True)
    ]
    return 2 * max(errors, default=0.0)


def compare(
    references: Sequence[tuple[Answered, Judged]], found: Sequence[Answered], *, tie_nats: float
) -> Outcome:
    """Compare answers of the same numbers pairwise; raise ValueError when they are none or not the same ones."""
    if not references or [answer.number for answer, _ in references] != [each.number for each in found]:
        raise ValueError(f"{len(references)} reference answers and {len(found)} found ones are not the same")
    partings = []
    differences, reference_errors, found_errors = [], [], []
    for (reference, judged), answer in zip(references, found, strict=True):
        common = _common_length(reference.token_ids, answer.token_ids)
        for place in range(common):
            own, exact, other = (each.logprobs[place][0] for each in (reference, judged, answer))
            differences.append(abs(own - other))
            reference_errors.append(abs(own - exact))
            found_errors.append(abs(other - exact))
        if reference.token_ids != answer.token_ids:
            partings.append(_part(reference, judged, answer, common, tie_nats))
    nearer = sum(ours < theirs for ours, theirs in zip(found_errors, reference_errors, strict=True))
    return Outcome(
        num_answers=len(found),
        num_tokens=len(differences),
        tie_nats=tie_nats,
        partings=tuple(partings),
        difference=Spread.of(differences),
        reference_error=Spread.of(reference_errors),
        found_error=Spread.of(found_errors),
        share_nearer=nearer / len(differences) if differences else math.nan,
    )


def _part(reference: Answered, judged: Judged, answer: Answered, place: int, tie_nats: float) -> Parting:
    candidates, exact = reference.candidates[place], judged.logprobs[place]
    token = answer.token_ids[place]
    gap = exact[0] - exact[candidates.index(token)] if token in candidates else None
    is_tie = gap is not None and abs(gap) <= tie_nats
    return Parting(reference.number, reference.adapter, place, candidates[0], token, gap, is_tie)


def _common_length(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens at the beginning are the same. Raises ValueError for answers of different lengths."""
    for index, (one, other) in enumerate(zip(left, right, strict=True)):
        if one != other:
            return index
    return len(left)
