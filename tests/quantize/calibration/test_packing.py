"""Rows are full, hold the documents' tokens in order, and say whose they are."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from quantize.calibration.packing import pack_rows

# Tokens that say where they come from: document * 1000 + place.
DOCUMENTS = st.lists(st.integers(1, 40), min_size=1, max_size=12).map(
    lambda lengths: [[1000 * number + place for place in range(size)] for number, size in enumerate(lengths)]
)


@given(
    documents=DOCUMENTS, row_tokens=st.integers(2, 16), num_rows=st.integers(1, 30), seed=st.integers(0, 9)
)
def test_rows_are_full_and_no_token_is_twice_in_them(
    documents: list[list[int]], row_tokens: int, num_rows: int, seed: int
) -> None:
    packed = pack_rows(documents, row_tokens=row_tokens, num_rows=num_rows, seed=seed)
    total = sum(map(len, documents))
    assert len(packed.rows) == min(num_rows, total // row_tokens)
    assert all(len(row) == row_tokens for row in packed.rows)
    tokens = [token for row in packed.rows for token in row]
    assert len(set(tokens)) == len(tokens)
    assert sorted(packed.documents) == sorted({token // 1000 for token in tokens})


@given(documents=DOCUMENTS, row_tokens=st.integers(2, 16), seed=st.integers(0, 9))
def test_a_piece_stays_in_order_and_is_followed_by_another_beginning(
    documents: list[list[int]], row_tokens: int, seed: int
) -> None:
    packed = pack_rows(documents, row_tokens=row_tokens, num_rows=10**6, seed=seed)
    tokens = [token for row in packed.rows for token in row]
    for left, right in pairwise(tokens):
        assert right == left + 1 or right % 1000 % row_tokens == 0


def test_the_seed_decides_the_order_and_nothing_else_does() -> None:
    documents = [[number] * 4 for number in range(50)]
    one, again, other = (pack_rows(documents, row_tokens=8, num_rows=5, seed=seed).rows for seed in (1, 1, 2))
    assert one == again != other
