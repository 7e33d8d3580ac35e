"""Documents one after another into rows of one length, without padding."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Full rows, and the indices of the documents that have a token in them."""

    rows: list[list[int]]
    documents: list[int]


def pack_rows(documents: Sequence[Sequence[int]], *, row_tokens: int, num_rows: int, seed: int) -> PackedRows:
    """Up to `num_rows` rows of exactly `row_tokens` tokens; the same arguments give the same rows.

    Documents come in an order that the seed decides. One that is longer than a row is cut into pieces of at most
    a row, which are put in order by themselves, so that one book does not fill all rows. What fills no row at the
    end is left out.
    """
    pieces = [
        (index, start)
        for index, document in enumerate(documents)
        for start in range(0, len(document), row_tokens)
    ]
    random.Random(seed).shuffle(pieces)  # noqa: S311 - a choice of rows, no secret
    rows: list[list[int]] = []
    used: dict[int, None] = {}
    waiting: list[int] = []
    owners: list[int] = []  # documents of what is waiting
    for index, start in pieces:
        if len(rows) == num_rows:
            break
        waiting += documents[index][start : start + row_tokens]
        owners.append(index)
        if len(waiting) >= row_tokens:  # of pieces no longer than a row, at most one row is full
            rows.append(waiting[:row_tokens])
            used |= dict.fromkeys(owners)
            waiting = waiting[row_tokens:]
            owners = [index] if waiting else []
    return PackedRows(rows, list(used))
