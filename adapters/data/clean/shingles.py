"""Texts as sets of shingles (runs of consecutive terms), in one sparse matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapters.data.clean.script import is_spaceless, terms

SPACED_TERMS = 3
"""Length of a shingle in words."""
SPACELESS_TERMS = 5
"""Length of a shingle in characters, for text that is mostly Chinese, Japanese, Thai and the like."""

# A shingle is taken for a template when at least so many examples have it, and not all with one answer.
_TEMPLATE_MIN_EXAMPLES = 10
_TEMPLATE_MIN_SHARE = 0.01

_CHUNK_TEXTS = 5_000
_PADDING = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER = np.uint64(0x9FB21C651E98DF25)


@dataclass(frozen=True, slots=True)
class ShingleSets:
    """Sets of shingles of n texts.

    `starts` int64 [n + 1] and `hashes` uint64 [starts[n]]: the set of text i is `hashes[starts[i]:starts[i + 1]]`,
    ascending, without repetition, never empty. A hash depends on the shingle's words alone.
    """

    starts: NDArray[np.int64]
    hashes: NDArray[np.uint64]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """int64 [n], at least 1."""
        return np.diff(self.starts)

    def fingerprints(self) -> NDArray[np.uint64]:
        """uint64 [n], equal for equal sets."""
        if len(self.starts) == 1:
            return np.empty(0, np.uint64)
        sums = np.add.reduceat(mixed(self.hashes), self.starts[:-1])
        return mixed(sums + self.sizes.astype(np.uint64))

    def select(self, rows: NDArray[np.int64]) -> ShingleSets:
        """The sets of some texts, in the given order."""
        sizes = self.sizes[rows]
        starts = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
        positions = np.arange(starts[-1]) + np.repeat(self.starts[rows] - starts[:-1], sizes)
        return ShingleSets(starts, self.hashes[positions])

    def matrix(self) -> Any:
        """scipy CSR float32 [n, distinct shingles] of ones."""
        from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

        distinct, columns = np.unique(self.hashes, return_inverse=True)
        ones = np.ones(len(columns), np.float32)
        return csr_matrix((ones, columns, self.starts), shape=(len(self.sizes), len(distinct)))


def shingle_sets(texts: Sequence[str], answers: NDArray[np.int64] | None = None) -> ShingleSets:
    """The shingles of every text.

    `answers` int64 [n], an id per text: shingles that at least 10 texts and 1 % have, with more than one answer
    among them, are a template (an instruction repeated in every prompt) and left out, for else two short notes
    under one long instruction would be alike. A text of which nothing is left keeps all its shingles.
    """
    known: dict[str, int] = {}
    owners, hashes = [], []
    for start in range(0, len(texts), _CHUNK_TEXTS):
        chunk = texts[start : start + _CHUNK_TEXTS]
        owner, values = _chunk_shingles(chunk, known)
        owners.append(owner + start)
        hashes.append(values)
    owner = np.concatenate(owners) if owners else np.empty(0, np.int64)
    values = np.concatenate(hashes) if hashes else np.empty(0, np.uint64)
    if answers is not None and len(texts) >= _TEMPLATE_MIN_EXAMPLES:
        keep = ~_is_template(owner, values, answers, len(texts))
        left = np.bincount(owner[keep], minlength=len(texts))
        keep |= left[owner] == 0
        owner, values = owner[keep], values[keep]
    starts = np.concatenate(([0], np.cumsum(np.bincount(owner, minlength=len(texts))))).astype(np.int64)
    return ShingleSets(starts, values)


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The 64-bit finaliser of MurmurHash3: every input bit reaches every output bit."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))


def _term_hash(term: str) -> int:
    return int.from_bytes(blake2b(term.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _chunk_shingles(
    texts: Sequence[str], known: dict[str, int]
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """(text index, shingle hash), sorted by both, without repetition. `known` remembers the terms' hashes."""
    flat: list[int] = []
    counts = np.empty(len(texts), np.int64)
    lengths = np.empty(len(texts), np.int64)
    for index, text in enumerate(texts):
        found = terms(text) or [text]
        for term in found:
            value = known.get(term)
            if value is None:
                value = known[term] = _term_hash(term)
            flat.append(value)
        spaceless = 0 if text.isascii() else sum(map(is_spaceless, found))
        counts[index] = len(found)
        lengths[index] = SPACELESS_TERMS if 2 * spaceless > len(found) else SPACED_TERMS
    # Padded at the end, so that every window can be read and a text shorter than a shingle has one.
    values = np.concatenate((np.array(flat, np.uint64), np.full(SPACELESS_TERMS, _PADDING)))
    first = np.concatenate(([0], np.cumsum(counts)[:-1]))
    owner = np.repeat(np.arange(len(texts)), counts)
    place = np.arange(len(owner)) - first[owner]
    length, count = lengths[owner], counts[owner]
    window = np.zeros(len(owner), np.uint64)
    for offset in range(SPACELESS_TERMS):
        inside = (offset < length) & (place + offset < count)
        padded = np.where(inside, values[offset : offset + len(owner)], _PADDING)
        window = np.where(offset < length, mixed(window * _MULTIPLIER + padded), window)
    whole = (place == 0) | (place + length <= count)
    owner, window = owner[whole], window[whole]
    order = np.lexsort((window, owner))
    owner, window = owner[order], window[order]
    fresh = np.ones(len(owner), bool)
    fresh[1:] = (owner[1:] != owner[:-1]) | (window[1:] != window[:-1])
    return owner[fresh], window[fresh]


def _is_template(
    owner: NDArray[np.int64], values: NDArray[np.uint64], answers: NDArray[np.int64], num_texts: int
) -> NDArray[np.bool_]:
    """bool per (text, shingle) pair."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    counts = np.diff(np.concatenate((starts, [len(ordered)])))
    answer = answers[owner[order]]
    has_several = np.minimum.reduceat(answer, starts) != np.maximum.reduceat(answer, starts)
    minimum = max(_TEMPLATE_MIN_EXAMPLES, _TEMPLATE_MIN_SHARE * num_texts)
    template = np.empty(len(values), bool)
    template[order] = np.repeat(has_several & (counts >= minimum), counts)
    return template
