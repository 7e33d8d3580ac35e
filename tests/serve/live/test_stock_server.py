"""OpenAI's dialect here and in vLLM's own server: the same fields, of the same types, and the same greedy answers.

What differs on purpose is in docs/migration.md, and refused or added by the tests at the end of this file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serve.live.stock_server import StockServer

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

MODEL = "smollm2-135m-instruct"
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
ASK = {"role": "user", "content": "What is the capital of France?"}
OPENED = [ASK, {"role": "assistant", "content": "The capital of"}]
CITY = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
SAME_NATS = 5e-3  # the mended kernels add up in another order
# Ids and times of one answer, and a hash over the server's settings.
OF_ITS_OWN = ("id", "created", "system_fingerprint")

FIELDS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "stop": {"stop": [" Paris"]},
    "a stop that stays": {"stop": "Paris", "include_stop_str_in_output": True},
    "four stops": {"stop": ["1", "2", "3", "4"]},
    "a token that stops": {"stop_token_ids": [7042]},
    "special tokens": {"skip_special_tokens": False, "max_tokens": 12},
    "bad words": {"bad_words": ["Paris"]},
    "allowed tokens": {"allowed_token_ids": [7042, 30], "max_tokens": 4},
    "a bias": {"logit_bias": {"7042": -100}},
    "penalties": {"repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.5},
    "a prompt's logprobs": {"prompt_logprobs": 2},
    "ids": {"return_token_ids": True},
    "a schema": {"structured_outputs": {"json": CITY}, "max_tokens": 24},
    "a choice": {"structured_outputs": {"choice": ["Rome", "Paris"]}},
    "a pattern": {"structured_outputs": {"regex": "[0-9]{3}"}},
    "any JSON": {"response_format": {"type": "json_object"}, "max_tokens": 16},
    "a response format": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": CITY}},
        "max_tokens": 24,
    },
    "two drawn": {"n": 2, "temperature": 1, "seed": 3},
    "drawn narrowly": {"temperature": 1, "seed": 3, "top_p": 0.5, "top_k": 5, "min_p": 0.1},
}
OWN_FIELDS: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"logprobs": True, "top_logprobs": 3}),
    (CHAT, {"logprobs": True, "return_tokens_as_token_ids": True}),
    (CHAT, {"max_completion_tokens": 3}),
    (CHAT, {"messages": OPENED, "continue_final_message": True, "add_generation_prompt": False}),
    (CHAT, {"add_generation_prompt": False}),
    (CHAT, {"chat_template_kwargs": {"enable_thinking": False}, "include_reasoning": False}),
    (COMPLETIONS, {"logprobs": 3}),
    (COMPLETIONS, {"logprobs": 2, "echo": True}),
    (COMPLETIONS, {"logprobs": 1, "echo": True, "max_tokens": 0}),
    (COMPLETIONS, {"prompt": ["The capital of France is", "2 + 2 ="]}),
    (COMPLETIONS, {"prompt": [504, 3575, 282, 4649, 314]}),
    (COMPLETIONS, {"prompt": "1 2 3 4 5", "max_tokens": 0, "echo": True}),
    (COMPLETIONS, {"prompt": "Zürich 你好 🔑 é:"}),
]


def asked(route: str, fields: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    given: dict[str, Any] = {"messages": [ASK]} if route == CHAT else {"prompt": "The capital of France is"}
    return route, {"model": MODEL, "max_tokens": 8, "temperature": 0, **given, **fields}


GRID = [asked(route, fields) for fields in FIELDS.values() for route in (CHAT, COMPLETIONS)]
GRID += [asked(route, fields) for route, fields in OWN_FIELDS]
STREAMED: list[dict[str, Any]] = [
    {},
    {"stream_options": {"include_usage": True}},
    {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    {"return_token_ids": True},
    {"stop": [" Paris"]},
    {"structured_outputs": {"choice": ["Rome", "Paris"]}},
]


@pytest.fixture(scope="module")
def stock(default_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    settings = {
        "served-model-name": MODEL,
        "dtype": "float32",
        "max-model-len": "2048",
        "max-num-seqs": "8",
        "kv-cache-memory-bytes": str(256 * 1024**2),
    }
    arguments = [f"--{name}={value}" for name, value in settings.items()]
    folder = tmp_path_factory.mktemp("stock")
    with (
        StockServer(folder, default_base, "--enforce-eager", *arguments) as server,
        server.client() as client,
    ):
        yield client


def alike(ours: Any, theirs: Any, path: str = "") -> None:
    """Assert that both are the same but for what belongs to one answer, and for rounding."""
    if isinstance(theirs, dict):
        assert isinstance(ours, dict), path
        assert ours.keys() == theirs.keys(), path
        for name, value in theirs.items():
            if name in OF_ITS_OWN:
                assert type(ours[name]) is type(value), f"{path}.{name}"
                assert ours[name], f"{path}.{name}"
            else:
                alike(ours[name], value, f"{path}.{name}")
    elif isinstance(theirs, list):
        assert isinstance(ours, list), path
        assert len(ours) == len(theirs), path
        for place, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            alike(one, other, f"{path}[{place}]")
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, abs=SAME_NATS), path
    else:
        assert (type(ours), ours) == (type(theirs), theirs), path


def chunks_of(client: httpx.Client, route: str, body: dict[str, Any]) -> list[Any]:
    """The chunks of a stream, which has to end as OpenAI's do."""
    response = client.post(route, json={**body, "stream": True})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    *events, done, nothing = response.text.split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def joined(chunks: list[Any]) -> dict[str, Any]:
    """A stream without its cuts, which depend on the clock: what stood where, and in which order it began."""
    text, finished = "", None
    ids: list[int] = []
    names: list[str] = []
    for chunk in chunks:
        for choice in chunk["choices"]:
            delta = choice.get("delta", choice)
            text += delta.get("content") or delta.get("text") or ""
            ids += choice.get("token_ids") or []
            finished = choice["finish_reason"] or finished
            names += [f"choice.{name}" for name in choice] + [f"delta.{name}" for name in delta]
        names += list(chunk)
    usage = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    return {
        "names": list(dict.fromkeys(names)),
        "text": text,
        "finish_reason": finished,
        "token_ids": ids,
        "usage": usage[-1:],
        "has_choices_at_the_end": bool(chunks[-1]["choices"]),
    }


@pytest.mark.parametrize(("route", "body"), GRID, ids=lambda value: repr(value)[-60:])
def test_an_answer_has_the_fields_of_vllms_own(
    http: httpx.Client, stock: httpx.Client, route: str, body: dict[str, Any]
) -> None:
    ours, theirs = http.post(route, json=body), stock.post(route, json=body)
    assert (ours.status_code, theirs.status_code) == (200, 200), (ours.text, theirs.text)
    assert ours.headers["content-type"] == theirs.headers["content-type"]
    alike(ours.json(), theirs.json())


@pytest.mark.parametrize("fields", STREAMED, ids=lambda value: repr(value)[:60])
@pytest.mark.parametrize("route", [CHAT, COMPLETIONS])
def test_a_stream_has_the_chunks_of_vllms_own(
    http: httpx.Client, stock: httpx.Client, route: str, fields: dict[str, Any]
) -> None:
    _, body = asked(route, fields)
    ours, theirs = chunks_of(http, route, body), chunks_of(stock, route, body)
    assert {chunk["id"] for chunk in ours} == {ours[0]["id"]}
    assert ours[0]["id"].startswith("req-")  # as in whole answers and X-Request-Id
    alike(ours[0], theirs[0])
    assert joined(ours) == joined(theirs)


def test_the_list_of_models_names_what_vllms_does(http: httpx.Client, stock: httpx.Client) -> None:
    ours, theirs = (client.get("/v1/models").json() for client in (http, stock))
    mine, other = ours["data"][0], theirs["data"][0]
    assert ours.keys() == theirs.keys()
    assert mine.keys() == other.keys() - {"permission"}
    for name in ("id", "object", "parent", "max_model_len"):
        assert mine[name] == other[name]


def test_sixteen_stop_texts_are_taken(http: httpx.Client, stock: httpx.Client) -> None:
    for route in (CHAT, COMPLETIONS):
        _, body = asked(route, {"stop": [f"{number} wonders" for number in range(16)]})
        assert (http.post(route, json=body).status_code, stock.post(route, json=body).status_code) == (
            200,
            400,
        )


TEMPLATED = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"


def test_text_of_special_tokens_is_what_it_is_at_vllm_when_it_is_asked_to_be(
    http: httpx.Client, stock: httpx.Client
) -> None:
    _, body = asked(COMPLETIONS, {"prompt": TEMPLATED})
    theirs = stock.post(COMPLETIONS, json=body).json()
    alike(http.post(COMPLETIONS, json={**body, "parse_special": True}).json(), theirs)
    as_text = http.post(COMPLETIONS, json=body).json()
    assert as_text["usage"]["prompt_tokens"] > theirs["usage"]["prompt_tokens"]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"temperature": -1}, 422),
        ({"temperature": 3}, 422),
        ({"top_p": 0}, 422),
        ({"n": 0}, 422),
        ({"n": 2}, 400),  # greedy
        ({"max_tokens": 0}, 422),
        ({"max_tokens": 100_000}, 400),
        ({"min_tokens": 50}, 400),
        ({"stop": ""}, 422),
        ({"logit_bias": {"99999": 1}}, 422),
        ({"structured_outputs": {}}, 422),
        ({"structured_outputs": {"regex": "([a-z"}}, 400),
        ({"prompt_logprobs": 1, "stream": True}, 422),
        ({"stream_options": {"include_usage": True}}, 422),
        ({"model": "nobody"}, 404),
    ],
    ids=lambda value: repr(value)[:50],
)
@pytest.mark.parametrize("route", [CHAT, COMPLETIONS])
def test_what_vllm_refuses_is_refused_here_with_the_fields_of_its_errors(
    http: httpx.Client, stock: httpx.Client, route: str, fields: dict[str, Any], status: int
) -> None:
    _, body = asked(route, fields)
    ours, theirs = http.post(route, json=body), stock.post(route, json=body)
    assert theirs.status_code == (404 if status == 404 else 400)
    assert ours.status_code == status
    assert ours.json()["error"].keys() >= theirs.json()["error"].keys()
