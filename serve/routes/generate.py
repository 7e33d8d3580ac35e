"""`POST /generate`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.responses import Response

from bases.errors import HotswapError
from serve.access.caller import Caller
from serve.engine.protocol import Delta, EngineRequest, TokenLogprob
from serve.gateway import Gateway
from serve.generation.generation import (
    PromptAnswer,
    SequenceAnswer,
    all_of,
    check_finished,
    collect,
    encode_prompts,
    engine_request,
    sampling_of,
)
from serve.generation.passage import Passage, Wish, enter
from serve.http.errors import body_of
from serve.http.exchange import Exchange, Reply
from serve.http.json_chunks import Rows
from serve.lifecycle.board import Lease
from serve.routes.dependencies import CallerDep, GatewayDep, KeyedRoute, RequestIdDep, SessionDep
from serve.routes.documentation import ERRORS, EVENTS
from serve.schemas.generate import GenerateAnswer, GenerateBody
from serve.schemas.sampling import constraint_of

router = APIRouter(route_class=KeyedRoute, tags=["generate"])


@router.post(
    "/generate",
    summary="Answer a prompt, with the base or an adapter",
    response_model=None,
    responses={200: {"model": GenerateAnswer, "description": "The answer.", "content": EVENTS}, **ERRORS},
)
async def generate(
    body: GenerateBody, gateway: GatewayDep, request_id: RequestIdDep, caller: CallerDep, session: SessionDep
) -> Response:
    """Continue `prompt`, or answer `messages` through the base's chat template."""
    return GenerateReply(gateway, body, request_id, caller, session)


class GenerateReply(Reply):
    """Answers one /generate request."""

    def __init__(
        self, gateway: Gateway, body: GenerateBody, request_id: str, caller: Caller, session: str | None
    ) -> None:
        super().__init__(gateway.exchanges, "/generate", request_id)
        self._gateway = gateway
        self._body = body
        self._caller = caller
        self._session = session

    async def run(self, exchange: Exchange) -> None:
        gateway, body = self._gateway, self._body
        wish = Wish(
            self._caller,
            body.adapter,
            "adapter",
            body.texts,
            prompts=len(body.prompt) if isinstance(body.prompt, list) else 1,
            max_tokens=body.max_tokens,
            session=self._session,
            stream=bool(body.stream),
            token_details=body.logprobs is not None,
        )
        async with enter(gateway, exchange, wish) as passage:
            await gateway.grammars.check(constraint_of(body.response_format), owner=self._caller.tenant)
            requests = await self._requests(passage)
            exchange.record.prompt_tokens = sum(len(request.prompt_token_ids) for request in requests)
            exchange.record.sequences = sum(request.sampling.n for request in requests)
            if body.stream:
                await self._stream(exchange, passage, requests[0])
            else:
                await self._whole(exchange, passage, requests)

    async def _requests(self, passage: Passage) -> list[EngineRequest]:
        facts = self._gateway.engine.facts
        prompts = await encode_prompts(
            self._body, self._gateway.engine.codec, context_tokens=facts.context_tokens
        )
        return [
            engine_request(
                self.request_id if len(prompts) == 1 else f"{self.request_id}-{place}",
                self._body,
                prompt,
                sampling_of(
                    self._body,
                    len(prompt),
                    defaults=facts.default_sampling,
                    max_tokens=passage.max_tokens,
                    context_tokens=facts.context_tokens,
                ),
                passage.lease.handle,
                cache_salt=passage.cache_salt,
            )
            for place, prompt in enumerate(prompts)
        ]

    async def _whole(self, exchange: Exchange, passage: Passage, requests: list[EngineRequest]) -> None:
        if len(requests) == 1:
            answers = [await self._one(exchange, passage, requests[0])]
        else:
            answers = await all_of(*(self._one(exchange, passage, request) for request in requests))
        record = exchange.record
        record.last_token = time.perf_counter()
        body: dict[str, Any] = {**self._head(passage.lease)}
        if isinstance(self._body.prompt, list):
            body["results"] = [
                {
                    "index": place,
                    **_answer_fields(answer),
                    "usage": _usage(answer.prompt_tokens, answer.completion_tokens),
                }
                for place, answer in enumerate(answers)
            ]
        else:
            body.update(_answer_fields(answers[0]))
        body["usage"] = _usage(record.prompt_tokens, record.completion_tokens)
        body["timing"] = exchange.timing()
        await exchange.json(body)

    async def _one(self, exchange: Exchange, passage: Passage, request: EngineRequest) -> PromptAnswer:
        gateway, record = self._gateway, exchange.record
        async with _place(passage, request) as waited:
            before = record.seconds
            answer = await collect(passage, request)
            record.completion_tokens += answer.completion_tokens  # whatever becomes of it
            record.note_queue(waited + (answer.queue_seconds or 0.0))
            if answer.ttft_seconds is not None:
                record.note_ttft(before + answer.ttft_seconds)
        for sequence in answer.sequences:
            sequence.text = await gateway.review.answer(passage.subject, sequence.text)
            sequence.reasoning = await gateway.review.answer(passage.subject, sequence.reasoning)
        return answer

    async def _stream(self, exchange: Exchange, passage: Passage, request: EngineRequest) -> None:
        gateway, record = self._gateway, exchange.record
        sequences = [SequenceAnswer(index) for index in range(request.sampling.n)]
        reviews = [gateway.review.stream(passage.subject) for _ in sequences]
        thoughts = [gateway.review.stream(passage.subject) for _ in sequences]
        reviewed = gateway.review.reads("answer", passage.subject)
        async with _place(passage, request) as waited, aclosing(passage.generate(request)) as outputs:
            async for output in outputs:
                if not exchange.started and not reviewed:
                    await exchange.open_events()
                record.note_queue(waited + (output.queue_seconds or 0.0))
                for delta in output.deltas:
                    if delta.token_ids:
                        record.token(len(delta.token_ids))
                    sequence = sequences[delta.index]
                    sequence.num_tokens += len(delta.token_ids)
                    if delta.finish_reason is not None:
                        sequence.finish_reason, sequence.stop_reason = delta.finish_reason, delta.stop_reason
                    delta.text = await reviews[delta.index].feed(delta.text)
                    delta.reasoning = await thoughts[delta.index].feed(delta.reasoning)
                    if delta.finish_reason is not None:
                        delta.text += await reviews[delta.index].finish()
                        delta.reasoning += await thoughts[delta.index].finish()
                    if delta.text or delta.reasoning or delta.logprobs:
                        if not exchange.started:
                            await exchange.open_events()
                        await exchange.event(_event("delta", _delta_fields(delta)))
            check_finished(sequences)
        done = {
            **self._head(passage.lease),
            "finish_reason": sequences[0].finish_reason,
            "stop_reason": sequences[0].stop_reason,
            "choices": [
                {"index": s.index, "finish_reason": s.finish_reason, "stop_reason": s.stop_reason}
                for s in sequences
            ],
            "usage": _usage(record.prompt_tokens, record.completion_tokens),
            "timing": exchange.timing(),
        }
        if not exchange.started:
            await exchange.open_events()
        await exchange.event(_event("done", done))
        await exchange.close_events()

    async def fail(self, exchange: Exchange, error: HotswapError) -> None:
        await exchange.event(_event("error", body_of(error, self.request_id)))
        await exchange.close_events()

    def _head(self, lease: Lease) -> dict[str, Any]:
        return {
            "id": self.request_id,
            "model": self._gateway.adapters.board.base_name,
            "adapter": lease.engine_name if lease.handle is not None else None,
        }


def _place(passage: Passage, request: EngineRequest) -> AbstractAsyncContextManager[float]:
    return passage.place(
        sequences=request.sampling.n,
        prompt_tokens=len(request.prompt_token_ids),
        max_tokens=request.sampling.max_tokens,
    )


def _event(name: str, payload: Mapping[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(payload) + b"\n\n"


def _usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}


def _answer_fields(answer: PromptAnswer) -> dict[str, Any]:
    fields = _sequence_fields(answer.sequences[0])
    if len(answer.sequences) > 1:
        fields["choices"] = [{"index": s.index, **_sequence_fields(s)} for s in answer.sequences]
    return fields


def _sequence_fields(sequence: SequenceAnswer) -> dict[str, Any]:
    fields: dict[str, Any] = {"text": sequence.text}
    if sequence.reasoning:
        fields["reasoning"] = sequence.reasoning
    fields["finish_reason"] = sequence.finish_reason
    fields["stop_reason"] = sequence.stop_reason
    if sequence.logprobs:
        fields["logprobs"] = Rows(sequence.logprobs, _token_fields)
    return fields


def _delta_fields(delta: Delta) -> dict[str, Any]:
    fields: dict[str, Any] = {"index": delta.index, "text": delta.text}
    if delta.reasoning:
        fields["reasoning"] = delta.reasoning
    if delta.logprobs:
        fields["logprobs"] = [_token_fields(token) for token in delta.logprobs]
    return fields


def _token_fields(token: TokenLogprob) -> dict[str, Any]:
    return {
        "id": token.token_id,
        "text": token.text,
        "logprob": token.logprob,
        "top": [{"id": i, "text": text, "logprob": logprob} for i, text, logprob in token.top],
    }
