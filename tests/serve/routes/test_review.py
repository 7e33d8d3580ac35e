"""Reviewed prompts and answers over HTTP, in every dialect: nothing unreviewed leaves, whatever field it is in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from serve.engine.protocol import Delta, EngineOutput, EngineRequest
from serve.engine.scripted import ScriptedEngine
from serve.errors import SettingsError
from serve.review.openai_answers import OpenAIAnswers
from serve.review.pattern_reviewer import PatternReviewer
from serve.review.review import Reviewer
from serve.review.rules import read_rules
from serve.review.subject import Subject
from serve.review.threads import ReviewThreads
from serve.review.verdict import Refuse, Verdict
from tests.serve.conftest import ScriptedGateway

MakeGateway = Callable[..., Awaitable[ScriptedGateway]]

# The scripted base answers "base base base ...".
RULES = """
[[rule]]
name = "twice"
action = "redact"
applies_to = ["answer"]
phrases = ["base base"]
replacement = "[two]"

[[rule]]
name = "advice"
action = "refuse"
applies_to = ["prompt"]
words = ["forbidden"]
message = "Not here."
"""
REFUSING = """
[[rule]]
name = "never"
action = "refuse"
applies_to = ["answer"]
phrases = ["base base"]
"""


ASKS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/generate", {"prompt": "ask", "max_tokens": 5}),
    ("/v1/completions", {"model": "scripted", "prompt": "ask", "max_tokens": 5}),
    ("/lorax/generate", {"inputs": "ask", "parameters": {"max_new_tokens": 5}}),
)


@pytest.fixture
def rules(tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    def write(text: str) -> dict[str, Any]:
        path = tmp_path / "rules.toml"
        path.write_text(text)
        return {"review": "patterns", "review_rules": path}

    return write


def events_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    """(event name, data) of a stream of /generate or OpenAI."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.partition(": ")[::2] for line in block.splitlines() if ": " in line)
        if lines.get("data") not in (None, "[DONE]"):
            found.append((lines.get("event", "message"), json.loads(lines["data"])))
    return found


@pytest.mark.parametrize("stream", [False, True])
async def test_generate_redacts_whole_and_streamed_alike(
    scripted_gateway: MakeGateway, rules: Any, stream: bool
) -> None:
    gateway = await scripted_gateway(**rules(RULES))
    response = await gateway.client.post("/generate", json={"prompt": "x", "max_tokens": 5, "stream": stream})
    assert response.status_code == 200
    if stream:
        events = events_of(response.text)
        text = "".join(data["text"] for name, data in events if name == "delta")
        assert events[-1][0] == "done"
    else:
        text = response.json()["text"]
    assert text == "[two] [two] base "


@pytest.mark.parametrize("stream", [False, True])
async def test_every_sequence_is_reviewed_by_itself(
    scripted_gateway: MakeGateway, rules: Any, stream: bool
) -> None:
    gateway = await scripted_gateway(**rules(RULES))
    body = {"prompt": "x", "max_tokens": 2, "n": 2, "temperature": 1.0, "stream": stream}
    response = await gateway.client.post("/generate", json=body)
    if stream:
        texts = ["", ""]
        for name, data in events_of(response.text):
            if name == "delta":
                texts[data["index"]] += data["text"]
    else:
        texts = [choice["text"] for choice in response.json()["choices"]]
    assert texts == ["[two] ", "[two] "]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"prompt": "a Forbidden thing"}),
        ("/generate", {"prompt": ["fine", "forbidden"]}),
        ("/generate", {"messages": [{"role": "user", "content": "forb\u200bidden"}], "stream": True}),
        ("/v1/completions", {"model": "scripted", "prompt": "forbidden"}),
        (
            "/v1/chat/completions",
            {
                "model": "scripted",
                "messages": [{"role": "user", "content": [{"type": "text", "text": "forbidden"}]}],
            },
        ),
        ("/lorax/generate", {"inputs": "forbidden"}),
    ],
)
async def test_a_refused_prompt_is_400_and_never_reaches_the_engine(
    scripted_gateway: MakeGateway, rules: Any, path: str, body: dict[str, Any]
) -> None:
    gateway = await scripted_gateway(**rules(RULES))
    response = await gateway.client.post(path, json=body)
    assert response.status_code == 400
    assert "Not here." in response.text
    assert "review_refused" in response.text or path.startswith("/lorax")
    assert gateway.engine.requests == []
    assert gateway.holds_nothing


@pytest.mark.parametrize("path", ["/generate", "/v1/chat/completions"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_refused_answer_that_nothing_was_sent_of_is_400(
    scripted_gateway: MakeGateway, rules: Any, path: str, stream: bool
) -> None:
    gateway = await scripted_gateway(**rules(REFUSING))
    body: dict[str, Any] = {"max_tokens": 4, "stream": stream}
    if path == "/generate":
        body["prompt"] = "x"
    else:
        body |= {"model": "scripted", "messages": [{"role": "user", "content": "x"}]}
    response = await gateway.client.post(path, json=body)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "review_refused")
    await gateway.engine.wait_gone()
    assert gateway.holds_nothing


async def test_the_audit_log_says_who_was_refused_what_and_never_the_text(
    scripted_gateway: MakeGateway, rules: Any
) -> None:
    gateway = await scripted_gateway(**rules(RULES))
    version = await gateway.load("risk")
    body = {"prompt": "a forbidden secret", "adapter": "risk"}
    refused = await gateway.client.post("/generate", json=body)
    await gateway.gateway.events.flush()
    response = await gateway.client.get("/admin/audit", params={"action": "review"})
    assert "secret" not in response.text
    (event,) = response.json()["events"]
    assert (event["actor"], event["outcome"], event["name"]) == ("local", "refused", "risk")
    assert event["detail"] == {
        "reviewer": "patterns",
        "rule": "advice",
        "stage": "prompt",
        "sha256": hashlib.sha256(b"a forbidden secret").hexdigest(),
        "request_id": refused.json()["error"]["request_id"],
        "route": "/generate",
        "version": version,
    }
    text = (await gateway.client.get("/metrics")).text
    assert 'hotswap_reviews_total{outcome="refused",reviewer="patterns",stage="prompt"} 1.0' in text


class Says(ScriptedEngine):
    """Says these words."""

    words = ("all ", "is ", "well, ", "base ", "base ", "ends")

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        for place, word in enumerate(self.words):
            last = place == len(self.words) - 1
            yield EngineOutput(
                [Delta(0, word, token_ids=(place,), finish_reason="stop" if last else None)],
                ttft_seconds=0.0 if last else None,
            )


@pytest.mark.parametrize("path", ["/generate", "/v1/completions", "/v1/chat/completions"])
async def test_an_answer_refused_midway_ends_with_one_error_event(
    scripted_gateway: MakeGateway, rules: Any, path: str
) -> None:
    gateway = await scripted_gateway(engine=Says(), **rules(REFUSING))
    asked: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "x"}]}
    if path != "/v1/chat/completions":
        asked = {"prompt": "x"} if path == "/generate" else {"model": "scripted", "prompt": "x"}
    response = await gateway.client.post(path, json={**asked, "stream": True, "max_tokens": 6})
    assert response.status_code == 200
    *before, (_, last) = events_of(response.text)
    text = "".join(data["text"] if path == "/generate" else said(data["choices"][0]) for _, data in before)
    assert text == "all is well, "
    assert last["error"]["code"] == "review_refused"
    assert "base" not in response.text.replace('"model":"', "").replace("scripted", "")


def said(choice: Mapping[str, Any]) -> str:
    return str(choice["text"] if "text" in choice else choice["delta"].get("content") or "")


async def test_an_own_reviewer_holds_a_stream_until_the_answer_is_complete(
    scripted_gateway: MakeGateway,
) -> None:
    gateway = await scripted_gateway(review=f"{__name__}:refuse_third")
    for max_tokens, status in ((2, 200), (3, 400)):
        body = {"prompt": "x", "max_tokens": max_tokens, "stream": True}
        response = await gateway.client.post("/generate", json=body)
        assert response.status_code == status
    assert (
        '"text":"base base "'
        in (
            await gateway.client.post("/generate", json={"prompt": "x", "max_tokens": 2, "stream": True})
        ).text
    )


def refuse_third(stage: str, text: str, subject: Subject) -> Verdict:
    return Refuse("third", "Too much.") if text.count("base") > 2 else None


async def test_a_policy_that_cannot_be_read_ends_the_start_before_the_engine(
    scripted_gateway: MakeGateway, rules: Any
) -> None:
    with pytest.raises(SettingsError, match=r"rules\.toml:4: "):
        await scripted_gateway(**rules(RULES.replace('"redact"', '"hide"')))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"prompt": "x", "logprobs": 1}),
        ("/v1/completions", {"model": "scripted", "prompt": "x", "logprobs": 1}),
        (
            "/v1/chat/completions",
            {"model": "scripted", "messages": [{"role": "user", "content": "x"}], "logprobs": True},
        ),
        ("/v1/completions", {"model": "scripted", "prompt": "x", "return_token_ids": True}),
        ("/v1/completions", {"model": "scripted", "prompt": "x", "prompt_logprobs": 0}),
        ("/v1/completions", {"model": "scripted", "prompt": [1, 2]}),
        ("/v1/completions", {"model": "scripted", "prompt": [[1, 2]]}),
        ("/lorax/generate", {"inputs": "x", "parameters": {"details": True, "top_n_tokens": 2}}),
    ],
)
async def test_what_would_go_past_the_review_is_refused(
    scripted_gateway: MakeGateway, rules: Any, path: str, body: dict[str, Any]
) -> None:
    reviewed = await scripted_gateway(**rules(RULES))
    assert (await reviewed.client.post(path, json=body)).status_code == 422
    assert reviewed.engine.requests == []


async def test_tokens_of_lorax_tell_no_more_than_the_text(scripted_gateway: MakeGateway, rules: Any) -> None:
    gateway = await scripted_gateway(**rules(RULES))
    parameters = {"max_new_tokens": 3, "details": True}
    whole = (
        await gateway.client.post("/lorax/generate", json={"inputs": "x", "parameters": parameters})
    ).json()
    assert whole["generated_text"] == "[two] base "
    assert whole["details"]["tokens"] == []
    response = await gateway.client.post(
        "/lorax/generate_stream", json={"inputs": "x", "parameters": parameters}
    )
    events = [json.loads(block.removeprefix("data:")) for block in response.text.split("\n\n") if block]
    assert events[-1]["generated_text"] == "[two] base "
    assert "".join(event["token"]["text"] for event in events) == "[two] base "
    assert {(event["token"]["id"], event["token"]["logprob"]) for event in events} == {(-1, 0.0)}


def openai(rules: Path) -> OpenAIAnswers:
    reviewer = PatternReviewer("patterns", read_rules(rules), threads=ReviewThreads(), seconds=1.0)
    subject = Subject("req-1", "/v1/chat/completions", "local", "", None, None)
    return OpenAIAnswers(Reviewer([reviewer]), subject)


async def stream_of(*chunks: Mapping[str, Any]) -> AsyncIterator[str]:
    for chunk in chunks:
        yield f"data: {orjson.dumps(chunk).decode()}\n\n"
    yield "data: [DONE]\n\n"


def piece(index: int = 0, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish, "token_ids": [7]}
    return {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}


async def told(answers: OpenAIAnswers, *chunks: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        data for _, data in events_of("".join([event async for event in answers.events(stream_of(*chunks))]))
    ]


@pytest.fixture
def rules_file(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(
        "[[rule]]\nname='s'\naction='redact'\napplies_to = ['answer']\nwords = ['secret']\nreplacement = '***'\n"
    )
    return path


async def test_content_reasoning_and_arguments_are_reviewed_each_from_its_beginning(rules_file: Path) -> None:
    call = {"index": 0, "id": "t", "type": "function", "function": {"name": "look", "arguments": ""}}
    chunks: Sequence[dict[str, Any]] = [
        piece(role="assistant", content=""),
        piece(reasoning="a sec"),
        piece(reasoning="ret thought, sec"),
        piece(content="ret is no secr"),
        piece(content="et"),
        piece(tool_calls=[call]),
        piece(tool_calls=[{"index": 0, "function": {"arguments": '{"q": "sec'}}]),
        piece(tool_calls=[{"index": 0, "function": {"arguments": 'ret"}'}}]),
        piece(finish="tool_calls"),
        {
            "id": "c",
            "object": "chat.completion.chunk",
            "model": "m",
            "choices": [],
            "usage": {"total_tokens": 3},
        },
    ]
    events = await told(openai(rules_file), *chunks)
    deltas = [event["choices"][0]["delta"] for event in events if event["choices"]]
    assert "".join(delta.get("reasoning") or "" for delta in deltas) == "a *** thought, sec"
    assert "".join(delta.get("content") or "" for delta in deltas) == "ret is no ***"
    calls = [call for delta in deltas for call in delta.get("tool_calls") or ()]
    assert "".join(call["function"].get("arguments") or "" for call in calls) == '{"q": "***"}'
    assert calls[0]["function"]["name"] == "look"
    assert deltas[0]["role"] == "assistant"
    assert events[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert events[-1]["usage"] == {"total_tokens": 3}
    assert "token_ids" not in json.dumps(events)
    assert "secret" not in json.dumps(events)


async def test_the_choices_of_a_stream_do_not_mix(rules_file: Path) -> None:
    events = await told(
        openai(rules_file),
        piece(0, content="sec"),
        piece(1, content="ret"),
        piece(0, content="ret"),
        piece(1, content=" sec"),
        piece(0, "stop"),
        piece(1, "length"),
    )
    texts = {0: "", 1: ""}
    for event in events:
        texts[event["choices"][0]["index"]] += event["choices"][0]["delta"].get("content") or ""
    assert texts == {0: "***", 1: "ret sec"}


async def test_a_whole_answer_keeps_its_shape_and_loses_what_would_tell(rules_file: Path) -> None:
    message = {
        "role": "assistant",
        "content": "a secret",
        "reasoning": "the secret",
        "refusal": None,
        "tool_calls": [
            {"id": "t", "type": "function", "function": {"name": "f", "arguments": '{"a": "secret"}'}}
        ],
    }
    answer = {
        "id": "c",
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": message,
                "finish_reason": "stop",
                "stop_reason": None,
                "logprobs": {"content": [{"token": "secret"}]},
                "token_ids": [1, 2],
            }
        ],
        "usage": {"total_tokens": 3},
    }
    passed = await openai(rules_file).whole(answer)
    (choice,) = passed["choices"]
    assert choice == {
        "index": 0,
        "finish_reason": "stop",
        "stop_reason": None,
        "message": {
            "role": "assistant",
            "refusal": None,
            "content": "a ***",
            "reasoning": "the ***",
            "tool_calls": [
                {"id": "t", "type": "function", "function": {"name": "f", "arguments": '{"a": "***"}'}}
            ],
        },
    }
    assert passed["usage"] == {"total_tokens": 3}


@pytest.mark.parametrize(("route", "body"), ASKS, ids=[route for route, _ in ASKS])
async def test_an_answer_that_is_refused_has_cost_its_tokens_all_the_same(
    scripted_gateway: MakeGateway, rules: Callable[[str], dict[str, Any]], route: str, body: dict[str, Any]
) -> None:
    gateway = await scripted_gateway(**rules(REFUSING))
    assert (await gateway.client.post(route, json=body)).status_code in (400, 422)
    counted = gateway.gateway.metrics.registry.get_sample_value(
        "hotswap_tenant_tokens_total", {"tenant": "none"}
    )
    assert counted == len("ask") + 5
