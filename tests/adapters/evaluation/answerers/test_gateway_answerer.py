"""Answers over HTTP: against the gateway on its scripted engine, and against a transport that plays its parts."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pytest

from adapters.data.encode import ExampleEncoder
from adapters.errors import EvaluationError
from adapters.evaluation.answer import Unavailable
from adapters.evaluation.answerers.answerer import quiet
from adapters.evaluation.answerers.gateway_answerer import GatewayAnswerer
from adapters.evaluation.answerers.gateway_http import GatewayHttp
from adapters.evaluation.question import Question, question_of
from tests.adapters.evaluation.conftest import RULE, chat, risk

VERSION = "risk@3f2a91c0"
URL = "http://gateway.test"
MODELS = {"data": [{"id": "tiny", "parent": None}, *({"id": n, "parent": "tiny"} for n in ("risk", VERSION))]}


class Played:
    """A gateway of plain functions: what it was asked, and how long its client said to wait."""

    def __init__(self, generate: Callable[[dict[str, Any]], Any], **routes: Callable[[dict[str, Any]], Any]):
        self.bodies: list[dict[str, Any]] = []
        self.pauses: list[float] = []
        self._routes = {"/generate": generate, "/v1/models": lambda _: MODELS}
        self._routes |= {f"/v1/{name}": route for name, route in routes.items()}

    def _answer(self, request: httpx.Request) -> httpx.Response:
        body = orjson.loads(request.content) if request.content else {}
        if body:
            self.bodies.append(body)
        given = self._routes[request.url.path](body)
        return given if isinstance(given, httpx.Response) else httpx.Response(200, json=given)

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def http(self, **options: Any) -> GatewayHttp:
        settings = {"concurrency": 4, "request_seconds": 60.0} | options
        return GatewayHttp(URL, transport=httpx.MockTransport(self._answer), sleep=self._pause, **settings)

    def answerer(self, adapter: str | None = "risk", **options: Any) -> GatewayAnswerer:
        return GatewayAnswerer(self.http(), adapter=adapter, max_new_tokens=16, **options)


def answer_body(text: str, *, adapter: str | None = VERSION, **more: Any) -> dict[str, Any]:
    usage = {"prompt_tokens": 5, "completion_tokens": 3}
    return {"text": text, "adapter": adapter, "finish_reason": "stop", "usage": usage, **more}


def token(text: str, *rivals: tuple[str, float], probability: float = 0.9) -> dict[str, Any]:
    top = [(text, probability), *rivals]
    rows = [{"id": place, "text": one, "logprob": math.log(share)} for place, (one, share) in enumerate(top)]
    return {**rows[0], "top": rows}


def error_body(status: int, message: str, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"message": message}}, headers=headers)


def asked() -> list[Question]:
    found = [question_of(risk(level, line=level)) for level in range(3)]
    return [question for question in found if question is not None]


def test_the_plain_greedy_model_is_asked_with_the_whole_conversation():
    played = Played(lambda body: answer_body(body["messages"][-1]["content"]))
    answers = played.answerer().answer(asked(), rule=None, progress=quiet)
    assert [each.text for each in answers] == [f"Payment {line} at 3 in the night" for line in range(3)]
    assert {key: played.bodies[0][key] for key in ("adapter", "temperature", "repetition_penalty")} == {
        "adapter": "risk",
        "temperature": 0.0,
        "repetition_penalty": 1.0,
    }
    assert played.bodies[0]["max_tokens"] == 16
    assert played.bodies[0]["reasoning"] is False


def test_the_base_is_asked_without_a_name_and_the_version_that_answered_is_told():
    played = Played(lambda body: answer_body("x", adapter=VERSION if "adapter" in body else None))
    base, adapter = played.answerer(None), played.answerer()
    for each in (base, adapter):
        each.answer(asked()[:1], rule=None, progress=quiet)
    assert (base.description, adapter.description) == ("tiny", VERSION)


def test_a_full_gateway_is_asked_again_after_the_time_it_names():
    replies = iter(
        [
            error_body(429, "full", **{"Retry-After": "3"}),
            error_body(503, "starting", **{"Retry-After": "99"}),
        ]
    )
    played = Played(lambda _: next(replies, None) or answer_body("done"))
    (answer,) = played.answerer().answer(asked()[:1], rule=None, progress=quiet)
    assert answer.text == "done"
    assert played.pauses == [3.0, 30.0]


def test_patience_ends_with_the_time_for_a_request():
    played = Played(lambda _: error_body(429, "the queue is full", **{"Retry-After": "25"}))
    with pytest.raises(EvaluationError, match="HTTP 429: the queue is full"):
        played.answerer().answer(asked()[:1], rule=None, progress=quiet)
    assert played.pauses == [25.0, 25.0, 25.0]


@pytest.mark.parametrize("status", [400, 422, 500, 503])
def test_a_refusal_is_passed_on_in_the_gateways_words(status):
    played = Played(lambda _: error_body(status, "the prompt is too long"))
    with pytest.raises(EvaluationError, match=f"HTTP {status}: the prompt is too long"):
        played.answerer().answer(asked(), rule=None, progress=quiet)


def test_an_alias_that_moves_while_it_is_asked_is_an_error():
    versions = iter(["risk@00000001", "risk@00000002", "risk@00000002"])
    played = Played(lambda _: answer_body("x", adapter=next(versions)))
    with pytest.raises(EvaluationError, match="moved from one version to another"):
        played.answerer().answer(asked(), rule=None, progress=quiet)


def test_an_answer_of_the_base_is_not_taken_for_the_adapters():
    played = Played(lambda _: answer_body("x", adapter=None))
    with pytest.raises(EvaluationError, match="asked for risk, the gateway answered as the base"):
        played.answerer().answer(asked(), rule=None, progress=quiet)


def test_an_unknown_adapter_is_refused_before_anything_is_asked():
    played = Played(lambda _: answer_body("x"))
    with pytest.raises(EvaluationError, match=r"serves no adapter 'rusk'; it serves: risk, risk@3f2a91c0"):
        played.answerer("rusk").answer(asked(), rule=None, progress=quiet)
    with pytest.raises(EvaluationError, match="serves no adapter 'tiny'"):
        played.answerer("tiny").answer(asked(), rule=None, progress=quiet)
    assert played.bodies == []


@pytest.mark.parametrize("reply", [httpx.Response(200, text="<html>"), {"data": []}, {"hello": "world"}])
def test_something_else_at_the_address_is_not_taken_for_a_gateway(reply):
    played = Played(lambda _: answer_body("x"), models=lambda _: reply)
    with pytest.raises(EvaluationError, match="is no Hotswap gateway"):
        played.answerer().answer(asked(), rule=None, progress=quiet)


def test_an_answer_of_another_shape_is_named_as_such():
    played = Played(lambda _: {"adapter": VERSION, "text": "x"})
    with pytest.raises(EvaluationError, match="cannot be read"):
        played.answerer().answer(asked(), rule=None, progress=quiet)


@pytest.mark.parametrize("url", ["nowhere", "http://[::1", "http://127.0.0.1:9", "ftp://127.0.0.1"])
def test_an_address_without_a_gateway_is_refused_with_the_remedy(url):
    gateway = GatewayHttp(url, concurrency=1, request_seconds=5)
    with pytest.raises(EvaluationError, match=r"no gateway answers|is no address"):
        GatewayAnswerer(gateway, adapter=None, max_new_tokens=1).answer(asked(), rule=None, progress=quiet)


def test_label_scores_come_from_the_likeliest_tokens_where_the_label_stands():
    tokens = [
        token("Risk"),
        token(":"),
        token(" "),
        token("2", ("3", 0.06), ("x", 0.02)),
        token("<|im_end|>"),
    ]
    played = Played(lambda _: answer_body("Risk: 2", logprobs=tokens))
    (answer,) = played.answerer().answer(asked()[:1], rule=RULE, progress=quiet)
    assert played.bodies[0]["logprobs"] == 20
    assert answer.label_scores == pytest.approx({"0": 0, "1": 0, "2": 0.9, "3": 0.06, "4": 0, "5": 0})
    assert answer.unseen_mass == pytest.approx(0.02)
    assert answer.token_ids == (0, 0, 0, 0, 0)


def test_an_answer_without_a_label_has_no_scores():
    played = Played(lambda _: answer_body("no idea", logprobs=[token("no"), token(" idea")]))
    (answer,) = played.answerer().answer(asked()[:1], rule=RULE, progress=quiet)
    assert answer.label_scores is None


def counted(base: Any) -> Callable[[dict[str, Any]], Any]:
    """A /generate that counts prompt tokens as the tiny base does."""
    encoder = ExampleEncoder(base, max_length_tokens=512)

    def generate(body: dict[str, Any]) -> dict[str, Any]:
        example = chat(body["messages"][-1]["content"], "")
        usage = {"prompt_tokens": len(encoder.encode_prompt(example)), "completion_tokens": 1}
        return answer_body("x", adapter=VERSION if "adapter" in body else None) | {"usage": usage}

    return generate


def test_likelihoods_are_read_from_the_echoed_prompt(tiny_base):
    examples = [chat("What is the capital of France?", "Paris."), chat("Is the sun a star?", "Yes.")]

    def completions(body: dict[str, Any]) -> dict[str, Any]:
        logprobs = [None, *(-0.5 for _ in body["prompt"][1:]), -9.0]  # the last was generated
        return {"choices": [{"logprobs": {"token_logprobs": logprobs}}]}

    played = Played(counted(tiny_base), completions=completions)
    answerer = played.answerer(base_folder=tiny_base)
    questions = [question for question in map(question_of, examples) if question is not None]
    answerer.answer(questions, rule=None, progress=quiet)
    found = answerer.likelihoods(examples, progress=quiet)
    assert isinstance(found, list)
    encoder = ExampleEncoder(tiny_base, max_length_tokens=512)
    for example, likelihood in zip(examples, found, strict=True):
        (encoded,) = encoder.encode(example)
        assert likelihood.num_tokens == encoded.num_supervised > 0
        assert likelihood.nats == pytest.approx(0.5 * encoded.num_supervised)
    body = played.bodies[-1]
    assert (body["model"], body["echo"], body["logprobs"], body["max_tokens"]) == ("risk", True, 0, 1)


def test_likelihoods_without_prompt_logprobs_are_unavailable_and_say_why(tiny_base):
    played = Played(counted(tiny_base), completions=lambda _: {"choices": [{"logprobs": None}]})
    found = played.answerer(base_folder=tiny_base).likelihoods([risk(1)], progress=quiet)
    assert isinstance(found, Unavailable)
    assert "no logprobs of a prompt" in found.reason
    without = played.answerer().likelihoods([risk(1)], progress=quiet)
    assert isinstance(without, Unavailable)
    assert "--base" in without.reason


def test_a_failure_while_references_are_read_keeps_the_answers(tiny_base):
    played = Played(counted(tiny_base), completions=lambda _: error_body(500, "out of memory"))
    found = played.answerer(base_folder=tiny_base).likelihoods([risk(1)], progress=quiet)
    assert isinstance(found, Unavailable)
    assert len(played.bodies) == 2
    assert "HTTP 500: out of memory" in found.reason


def test_references_beyond_the_gateways_context_are_left_out(tiny_base):
    models = {"data": [{"id": "tiny", "parent": None, "max_model_len": 40}]}

    def completions(body: dict[str, Any]) -> dict[str, Any]:
        assert len(body["prompt"]) < 40
        return {"choices": [{"logprobs": {"token_logprobs": [None, *(-1.0 for _ in body["prompt"])]}}]}

    played = Played(counted(tiny_base), models=lambda _: models, completions=completions)
    found = played.answerer(None, base_folder=tiny_base).likelihoods(
        [chat("Is it?", "Yes."), chat("Is it?", "Yes. " * 40)], progress=quiet
    )
    assert isinstance(found, list)
    assert found[0].num_tokens > 0
    assert found[1].num_tokens == 0


def test_the_tokenizer_of_another_base_is_noticed(tiny_base):
    played = Played(lambda _: answer_body("x"))  # counts 5 tokens, whatever is asked
    answerer = played.answerer(base_folder=tiny_base)
    answerer.answer(asked(), rule=None, progress=quiet)
    found = answerer.likelihoods([risk(1)], progress=quiet)
    assert isinstance(found, Unavailable)
    assert "reads a prompt as 5 tokens" in found.reason


async def test_a_running_gateway_answers_as_the_adapter_and_as_the_base(running_server):
    server = await running_server(max_num_seqs=2, max_queued_requests=4)
    source = server.make_adapter("risk-1")
    outcome = await server.gateway.adapters.load("risk", source, actor="test")
    version = str(outcome.managed.version)
    gateway = GatewayHttp(server.url, concurrency=8, request_seconds=30)
    adapter = GatewayAnswerer(gateway, adapter="risk", max_new_tokens=2)
    base = GatewayAnswerer(gateway, adapter=None, max_new_tokens=2)
    of_adapter = await asyncio.to_thread(adapter.answer, asked(), rule=RULE, progress=quiet)
    of_base = await asyncio.to_thread(base.answer, asked(), rule=None, progress=quiet)
    assert [each.text.split() for each in of_adapter] == [[version, version]] * 3
    assert [each.text.split() for each in of_base] == [["base", "base"]] * 3
    assert {each.finish_reason for each in of_adapter} == {"length"}
    assert [each.num_tokens for each in of_adapter] == [2, 2, 2]
    assert len(of_adapter[0].token_ids or ()) == 2
    assert adapter.description == version
