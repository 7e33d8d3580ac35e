"""Small sketches of shingle sets by which similar ones are found without comparing all pairs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from adapters.data.clean.shingles import ShingleSets, mixed

_NUM_PERMUTATIONS = 128
# Largest probability with which a pair exactly at the threshold may be missed by MinHash.
_MAX_MISS = 1e-3
# Sets in one bucket are compared with so many neighbours. Only buckets larger than that lose pairs, and there
# clusters are joined through the neighbours.
_MINHASH_NEIGHBOURS = 64
_SIMHASH_NEIGHBOURS = 4_096

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


def minhash_pairs(
    sets: ShingleSets, groups: NDArray[np.int64], *, threshold: float, seed: int
) -> Iterator[Pairs]:
    """Pairs of rows of one group that probably have a Jaccard similarity of `threshold` and more.

    datasketch makes the signatures. Its index (one Python set per bucket) is not used: it is slower than sorting
    and compares all pairs of a bucket, which is quadratic for a template with thousands of fillings.
    """
    num_bands, num_rows = band_shape(threshold)
    signatures = _signatures(sets, seed)
    for band in range(num_bands):
        part = signatures[:, band * num_rows : (band + 1) * num_rows].astype(np.uint64)
        key = np.zeros(len(part), np.uint64)
        for column in part.T:
            key = mixed(key + column + np.uint64(1))
        yield from _same_bucket(key, groups, sets.fingerprints(), _MINHASH_NEIGHBOURS)


def band_shape(threshold: float) -> tuple[int, int]:
    """(bands, rows per band): the most selective that misses a pair at the threshold at most once in 1,000."""
    for num_rows in range(_NUM_PERMUTATIONS, 1, -1):
        num_bands = _NUM_PERMUTATIONS // num_rows
        if (1 - threshold**num_rows) ** num_bands <= _MAX_MISS:
            return num_bands, num_rows
    return _NUM_PERMUTATIONS, 1


def simhash_pairs(sets: ShingleSets, groups: NDArray[np.int64], *, threshold: float) -> Iterator[Pairs]:
    """Pairs of rows of one group whose 64-bit SimHashes differ in at most `max_distance_bits(threshold)` bits.

    Every such pair agrees in one of `distance + 1` blocks of bits, so that only rows with an equal block are
    compared.
    """
    codes = simhashes(sets)
    distance = max_distance_bits(threshold)
    edges = np.linspace(0, 64, distance + 2).astype(int)
    for low, high in pairwise(edges.tolist()):
        block = (codes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        for left, right in _same_bucket(mixed(block + np.uint64(1)), groups, codes, _SIMHASH_NEIGHBOURS):
            near = np.bitwise_count(codes[left] ^ codes[right]) <= distance
            yield left[near], right[near]


def simhashes(sets: ShingleSets) -> NDArray[np.uint64]:
    """uint64 [n]: bit b says whether more than half of the set's shingles have bit b."""
    hashes = mixed(sets.hashes)
    codes = np.zeros(len(sets.sizes), np.uint64)
    for bit in range(64):
        ones = np.add.reduceat((hashes >> np.uint64(bit)) & np.uint64(1), sets.starts[:-1]).astype(np.int64)
        codes |= (2 * ones > sets.sizes).astype(np.uint64) << np.uint64(bit)
    return codes


def max_distance_bits(threshold: float) -> int:
    """Expected Hamming distance of two equally large sets with that Jaccard similarity, rounded.

    A bit differs with probability angle / pi (Charikar 2002); the cosine of two sets of one size with Jaccard
    similarity J is 2 J / (1 + J). At the threshold itself about half of the pairs are found, above it more.
    """
    return round(64 * math.acos(min(1.0, 2 * threshold / (1 + threshold))) / math.pi)


def _signatures(sets: ShingleSets, seed: int) -> NDArray[np.uint32]:
    """uint32 [n, permutations]."""
    from datasketch import MinHash  # type: ignore[import-untyped]

    values = mixed(sets.hashes).astype(np.uint32)
    permutations = MinHash(num_perm=_NUM_PERMUTATIONS, seed=seed).permutations
    signatures = np.empty((len(sets.sizes), _NUM_PERMUTATIONS), np.uint32)
    for row in range(len(signatures)):
        sketch = MinHash(
            num_perm=_NUM_PERMUTATIONS, seed=seed, hashfunc=int, permutations=permutations, scheme="affine32"
        )
        sketch.update_batch(values[sets.starts[row] : sets.starts[row + 1]])
        signatures[row] = sketch.hashvalues
    return signatures


def _same_bucket(
    keys: NDArray[np.uint64], groups: NDArray[np.int64], tie_break: NDArray[np.uint64], num_neighbours: int
) -> Iterator[Pairs]:
    """Pairs of rows with equal group and key, each row with its next neighbours in the order of `tie_break`.

    That order depends on the texts alone, and so does what is found.
    """
    keys = mixed(keys + mixed(groups.astype(np.uint64)))
    order = np.lexsort((tie_break, keys))
    ordered = keys[order]
    for step in range(1, min(num_neighbours, len(order) - 1) + 1):
        same = ordered[:-step] == ordered[step:]
        if not same.any():
            return
        yield order[:-step][same], order[step:][same]
