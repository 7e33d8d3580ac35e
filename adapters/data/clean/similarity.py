"""Which examples are near duplicates of each other: the relation behind removal, grouping and leak check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from adapters.data.clean.keys import comparison_key, prompt_text
from adapters.data.clean.shingles import ShingleSets, shingle_sets
from adapters.data.clean.sketches import Pairs, minhash_pairs, simhash_pairs
from adapters.data.example import Example
from adapters.errors import DataError

Method = Literal["minhash", "simhash"]

MAX_ALL_PAIRS = 2_000
"""Up to so many distinct prompts all pairs are compared; above, a sketch proposes them."""
_SEED = 17
_VERIFY_PAIRS = 50_000
_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Comparison:
    """n examples made comparable.

    `row_of_example` int64 [n]: examples with the same shingles and the same comparison key share a row;
    `sets` and `groups` int64 are per row; only rows of one group (answer, label, system messages) are compared.
    """

    row_of_example: NDArray[np.int64]
    sets: ShingleSets
    groups: NDArray[np.int64]

    def similarity(self, left: int, right: int) -> float:
        """Jaccard similarity of two examples' prompts."""
        first, second = (self._row(self.row_of_example[index]) for index in (left, right))
        shared = len(np.intersect1d(first, second, assume_unique=True))
        return shared / (len(first) + len(second) - shared)

    def _row(self, row: int) -> NDArray[np.uint64]:
        return self.sets.hashes[self.sets.starts[row] : self.sets.starts[row + 1]]


def compare(examples: Sequence[Example]) -> Comparison:
    """Shingles of the prompts, and who may be compared with whom."""
    ids: dict[bytes, int] = {}
    group = np.array([ids.setdefault(comparison_key(example), len(ids)) for example in examples], np.int64)
    sets = shingle_sets([prompt_text(example) for example in examples], group)
    identity = np.stack((sets.fingerprints(), group.astype(np.uint64)), axis=1)
    _, first, rows = np.unique(identity, axis=0, return_index=True, return_inverse=True)
    return Comparison(rows.reshape(-1), sets.select(first), group[first])


def similar_rows(
    comparison: Comparison,
    *,
    threshold: float,
    method: Method,
    max_all_pairs: int = MAX_ALL_PAIRS,
    wanted: NDArray[np.bool_] | None = None,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
    """Pairs of rows with a Jaccard similarity of at least `threshold`, and that similarity; each exact.

    With `wanted` bool [rows, 2] only pairs of a row with the first mark and one with the second, and a pair may
    come twice. Without it a pair is left out where the pairs before it connect its rows already.

    Raises:
        DataError: the threshold is not above 0 and at most 1, or the method is unknown.
    """
    check_similarity_options(threshold, method)
    _, inverse, sizes = np.unique(comparison.groups, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(sizes[inverse.reshape(-1)] > 1)
    if len(rows) < 2:
        return
    sets, groups = comparison.sets.select(rows), comparison.groups[rows]
    matrix = sets.matrix()
    proposed: Iterator[Pairs]
    if len(rows) <= max_all_pairs:
        proposed = _overlapping(matrix, groups)
    elif method == "minhash":
        proposed = minhash_pairs(sets, groups, threshold=threshold, seed=_SEED)
    else:
        proposed = simhash_pairs(sets, groups, threshold=threshold)
    components = Components(len(rows))
    num_groups = len(np.unique(groups))
    marks = None if wanted is None else wanted[rows]
    for left, right in _gathered(proposed):
        if marks is None:
            useful = components.of[left] != components.of[right]
        else:
            useful = (marks[left, 0] & marks[right, 1]) | (marks[left, 1] & marks[right, 0])
        for start in range(0, int(useful.sum()), _VERIFY_PAIRS):
            a, b = (side[useful][start : start + _VERIFY_PAIRS] for side in (left, right))
            shared = np.asarray(matrix[a].multiply(matrix[b]).sum(axis=1), np.float64).reshape(-1)
            similarity = shared / (sets.sizes[a] + sets.sizes[b] - shared)
            enough = similarity >= threshold - _TOLERANCE
            if enough.any():
                components.join(a[enough], b[enough])
                yield rows[a[enough]], rows[b[enough]], similarity[enough]
                if marks is None and components.count == num_groups:
                    return  # every group hangs together: no pair can add anything


def check_similarity_options(threshold: float, method: str) -> None:
    """Raises DataError for a threshold that is not above 0 and at most 1, and for an unknown method."""
    if not 0 < threshold <= 1:
        raise DataError(
            f"The near-duplicate threshold is {threshold}; give one above 0 and at most 1, such as 0.85."
        )
    if method not in ("minhash", "simhash"):
        raise DataError(f"The near-duplicate method is {method!r}; give minhash or simhash.")


class Components:
    """Which of n nodes hang together: `of` int64 [n] is the component of each node, `count` how many there are."""

    def __init__(self, num_nodes: int) -> None:
        self.of = np.arange(num_nodes)
        self.count = num_nodes

    def join(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> None:
        """Connects left[i] with right[i]."""
        from scipy.sparse import coo_matrix  # type: ignore[import-untyped]
        from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]

        size = len(self.of)
        edges = coo_matrix((np.ones(len(left), bool), (self.of[left], self.of[right])), shape=(size, size))
        _, labels = connected_components(edges, directed=False)
        self.of = labels[self.of].astype(np.int64)
        self.count = len(np.unique(self.of))


def _gathered(proposed: Iterator[Pairs]) -> Iterator[Pairs]:
    """The same pairs in fewer, larger pieces, without repetition inside a piece."""
    pieces: list[Pairs] = []
    count = 0
    for left, right in proposed:
        pieces.append((np.minimum(left, right), np.maximum(left, right)))
        count += len(left)
        if count >= _VERIFY_PAIRS:
            yield _distinct(pieces)
            pieces, count = [], 0
    if pieces:
        yield _distinct(pieces)


def _distinct(pieces: list[Pairs]) -> Pairs:
    both = np.concatenate([left for left, _ in pieces]) << 32 | np.concatenate([right for _, right in pieces])
    both = np.unique(both)
    return both >> 32, both & 0xFFFFFFFF


def _overlapping(matrix: Any, groups: NDArray[np.int64]) -> Iterator[Pairs]:
    """All pairs of rows of one group that share a shingle."""
    shared = (matrix @ matrix.T).tocoo()
    left, right = shared.row.astype(np.int64), shared.col.astype(np.int64)
    keep = (left < right) & (groups[left] == groups[right])
    yield left[keep], right[keep]
