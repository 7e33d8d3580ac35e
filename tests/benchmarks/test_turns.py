"""Who comes first in which round."""

from __future__ import annotations

from benchmarks.turns import rotated


def test_each_round_begins_with_another_contender():
    assert [rotated("abc", number) for number in range(4)] == [
        list("abc"),
        list("bca"),
        list("cab"),
        list("abc"),
    ]
    assert rotated([], 3) == []
