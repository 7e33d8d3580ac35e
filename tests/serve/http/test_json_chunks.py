"""JSON made a chunk at a time: the same text, with turns for others in between."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.http.json_chunks import CHUNK_BYTES, Rows, json_chunks

LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text()
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.lists(inner, min_size=60)
)


def text_of(payload: Any) -> bytes:
    return b"".join(asyncio.run(json_chunks(payload)))


@settings(deadline=None)
@given(VALUES)
def test_it_is_the_text_that_is_made_at_once(value: Any) -> None:
    assert text_of(value) == orjson.dumps(value)


def test_rows_are_a_list_of_what_they_are_made_into() -> None:
    for length in (0, 1, 63, 64, 65, 200):
        rows = Rows(range(length), lambda number: {"number": number, "list": [number]})
        payload = {"a": 1, "choices": [{"rows": rows}, {"rows": rows}], "z": "ä"}
        made = [{"number": number, "list": [number]} for number in range(length)]
        assert orjson.loads(text_of(payload)) == {
            "a": 1,
            "choices": [{"rows": made}, {"rows": made}],
            "z": "ä",
        }


async def test_others_have_a_turn_after_each_chunk() -> None:
    made = 0
    made_by_turn: list[int] = []

    def render(number: int) -> str:
        nonlocal made
        made += 1
        return "x" * 1000

    async def others() -> None:
        while made < 2000:
            made_by_turn.append(made)
            await asyncio.sleep(0)

    waiting = asyncio.create_task(others())
    chunks = await json_chunks({"rows": Rows(range(2000), render)})
    await waiting
    steps = [after - before for before, after in itertools.pairwise(made_by_turn)]
    assert max(steps) * 1000 <= 2 * CHUNK_BYTES
    assert max(map(len, chunks)) <= 2 * CHUNK_BYTES
