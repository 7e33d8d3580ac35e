"""Many completions as several narrow requests, and their answers as one."""

from __future__ import annotations

from typing import Any

import pytest

from serve.routes.openai_parts import as_one, in_parts
from serve.schemas.openai import CompletionBody


def body(prompt: Any, **fields: Any) -> CompletionBody:
    return CompletionBody.model_validate({"model": "m", "prompt": prompt, **fields})


@pytest.mark.parametrize(
    ("prompt", "fields", "widths"),
    [
        ("one text", {}, [1]),
        ("one text", {"n": 16}, [1]),
        ([1, 2, 3], {"n": 16}, [1]),
        (["x"] * 20, {}, [20]),
        (["x"] * 21, {}, [20, 1]),
        ([[1], [2], [3]], {"n": 8}, [2, 1]),
        (["x"] * 3, {"n": 16}, [1, 1, 1]),
        (["x"] * 128, {}, [20] * 6 + [8]),
    ],
)
def test_a_part_takes_a_quarter_of_the_engine_at_most(
    prompt: Any, fields: dict[str, Any], widths: list[int]
) -> None:
    whole = body(prompt, **fields)
    parts = in_parts(whole, max_running=80)
    assert [part.num_prompts for part in parts] == widths
    if len(parts) > 1:
        assert [each for part in parts for each in part.prompt] == prompt
    assert all(part.model_copy(update={"prompt": prompt}) == whole for part in parts)


def test_choices_are_numbered_on_and_usage_is_added() -> None:
    parts = [body(["a", "b"], n=2), body(["c"], n=2)]

    def answer(count: int, prompt_tokens: int, cached: int | None) -> dict[str, Any]:
        details = {"cached_tokens": cached} if cached is not None else None
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": count,
            "total_tokens": prompt_tokens + count,
        }
        return {
            "id": "x",
            "model": "m",
            "choices": [{"index": index, "text": "t"} for index in range(count)],
            "usage": {**usage, "prompt_tokens_details": details},
        }

    one = as_one([answer(4, 10, None), answer(2, 5, 3)], parts)
    assert [choice["index"] for choice in one["choices"]] == [0, 1, 2, 3, 4, 5]
    assert one["usage"] == {
        "prompt_tokens": 15,
        "completion_tokens": 6,
        "total_tokens": 21,
        "prompt_tokens_details": {"cached_tokens": 3},
    }
    assert as_one([answer(4, 10, None), answer(2, 5, None)], parts)["usage"]["prompt_tokens_details"] is None
