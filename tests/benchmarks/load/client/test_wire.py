"""From bytes on the wire to what an event tells, and the requests that are sent."""

from __future__ import annotations

import json

import pytest

from benchmarks.load.client.wire import Dialect, read_event, read_payload, request_body


@pytest.mark.parametrize("block", [b": a comment\n\n", b"data: [DONE]\n\n", b"\n\n", b"event: ping\n\n"])
def test_what_is_no_event_brings_none(block):
    assert read_event(block) is None


def test_an_event_brings_text_whatever_ends_its_lines():
    for block in (b'data: {"choices":[{"text":"x"}]}\n\n', b'event: delta\r\ndata: {"text":"x"}\r\n\n'):
        event = read_event(block)
        assert event is not None
        assert (event.text, event.finished) == (True, False)


def test_the_last_event_repeats_the_text_and_brings_none():
    block = b'event: done\ndata: {"text":"all of it","adapter":"a@1","usage":{"completion_tokens":3}}\n\n'
    event = read_event(block)
    assert event is not None
    assert (event.text, event.finished, event.adapter, event.completion_tokens) == (False, True, "a@1", 3)


@pytest.mark.parametrize(
    ("payload", "text", "tokens", "error"),
    [
        ({"index": 0, "text": "a"}, True, None, None),
        (
            {"finish_reason": "length", "choices": [{"index": 0}], "usage": {"completion_tokens": 3}},
            False,
            3,
            None,
        ),
        ({"choices": [{"text": "b"}], "usage": None}, True, None, None),
        ({"choices": [{"delta": {"content": "c"}}]}, True, None, None),
        ({"choices": [{"delta": {"role": "assistant"}}]}, False, None, None),
        ({"choices": [], "usage": {"completion_tokens": 4}}, False, 4, None),
        ({"error": {"code": "engine_dead", "message": "gone"}}, False, None, "engine_dead"),
        ({"error": {"type": "BadRequestError", "code": None}}, False, None, "BadRequestError"),
        ({"error": "plain words"}, False, None, "error"),
    ],
)
def test_all_dialects_are_read_alike(payload, text, tokens, error):
    event = read_payload(payload)
    assert (event.text, event.completion_tokens, event.error) == (text, tokens, error)


@pytest.mark.parametrize("dialect", ["generate", "chat", "completions"])
@pytest.mark.parametrize("stream", [True, False])
def test_every_request_asks_for_the_same_work(dialect: Dialect, stream: bool):
    body = json.loads(request_body(dialect, model="m", adapter="a", prompt="p", max_tokens=7, stream=stream))
    assert (body["max_tokens"], body["temperature"], body["ignore_eos"]) == (7, 0.0, True)
    assert body.get("stream", False) is stream
    assert body["adapter" if dialect == "generate" else "model"] == "a"
    assert "p" in json.dumps(body.get("messages", body.get("prompt")))


def test_the_base_is_asked_by_its_name_where_a_name_is_needed():
    def body(dialect: Dialect):
        return json.loads(
            request_body(dialect, model="m", adapter=None, prompt="p", max_tokens=7, stream=True)
        )

    assert "adapter" not in body("generate")
    assert body("completions")["model"] == "m"
