"""`/v1/models`, `/v1/chat/completions`, `/v1/completions`: OpenAI's dialect, answered by vLLM's own handlers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import orjson
from fastapi import APIRouter
from starlette.responses import Response

from bases.errors import HotswapError
from serve.access.caller import Caller
from serve.errors import InvalidRequestError
from serve.gateway import Gateway
from serve.generation.generation import all_of
from serve.generation.limits import check_characters
from serve.generation.passage import Passage, Wish, enter
from serve.http.errors import body_of, json_response
from serve.http.exchange import Exchange, Record, Reply
from serve.lifecycle.openai_text import text_of_answer, text_of_events
from serve.lifecycle.state import AdapterState
from serve.review.openai_answers import OpenAIAnswers
from serve.routes.dependencies import CallerDep, GatewayDep, KeyedRoute, RequestIdDep, SessionDep
from serve.routes.documentation import ERRORS, OPENAI_EVENTS, WIRE_ERRORS, errors
from serve.routes.openai_parts import as_one, in_parts
from serve.schemas.openai import ChatBody, CompletionBody

router = APIRouter(prefix="/v1", route_class=KeyedRoute, tags=["openai"])

_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"description": "OpenAI's answer.", "content": {"application/json": {}, **OPENAI_EVENTS}}
}
# Waiting requests are counted by an estimate until the handler has tokenised them.
_CHARS_PER_TOKEN = 4


@router.get(
    "/models",
    summary="The base and the adapters that can be named as `model`",
    responses={**WIRE_ERRORS, **errors(401, 503)},
)
async def models(gateway: GatewayDep, caller: CallerDep) -> dict[str, Any]:
    """What the caller may use: the base, then each live alias and its version. No server paths."""
    board = gateway.adapters.board
    cards: list[dict[str, Any]] = []
    if caller.may_use(None):
        cards.append(_card(gateway, board.base_name, None))
    for alias, managed in sorted(board.aliases().items()):
        if managed.state is AdapterState.LIVE and caller.may_use(alias):
            version = str(managed.version)
            cards += [_card(gateway, name, version) for name in (alias, version)]
    return {"object": "list", "data": cards}


def _card(gateway: Gateway, name: str, version: str | None) -> dict[str, Any]:
    """What is told of a name that stands for an adapter's version, or for the base."""
    base = gateway.adapters.board.base_name
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "hotswap",
        "root": version or base,
        "parent": base if version is not None else None,
        "max_model_len": gateway.engine.facts.context_tokens,
    }


@router.post("/chat/completions", summary="OpenAI chat", response_model=None, responses={**_ANSWER, **ERRORS})
async def chat(
    body: ChatBody, gateway: GatewayDep, request_id: RequestIdDep, caller: CallerDep, session: SessionDep
) -> Response:
    """Answer a conversation; `model` is the base, an alias or a pinned version."""
    return OpenAIReply(gateway, body, request_id, caller, session)


@router.post(
    "/completions", summary="OpenAI completions", response_model=None, responses={**_ANSWER, **ERRORS}
)
async def completions(
    body: CompletionBody,
    gateway: GatewayDep,
    request_id: RequestIdDep,
    caller: CallerDep,
    session: SessionDep,
) -> Response:
    """Continue a text; `model` is the base, an alias or a pinned version."""
    return OpenAIReply(gateway, body, request_id, caller, session)


@router.get("/models/{model:path}", summary="One base or adapter", responses={**ERRORS})
async def model(model: str, gateway: GatewayDep, caller: CallerDep) -> Response:
    """The card of one name that the caller can ask for."""
    listed = await models(gateway, caller)
    for card in listed["data"]:
        if card["id"] == model:
            return json_response(200, card)
    with gateway.adapters.board.lease(model, param="model", caller=caller) as lease:
        return json_response(200, _card(gateway, model, lease.version))


class _Observer:
    """Writes what vLLM's handler does into the record of the exchange."""

    def __init__(self, record: Record, *, waited: float, streaming: bool) -> None:
        self._record = record
        self._waited = waited
        self._before = record.seconds
        self._streaming = streaming

    def prompt(self, num_tokens: int) -> None:
        self._record.prompt_tokens += num_tokens

    def output(self, num_tokens: int, queue_seconds: float | None, ttft_seconds: float | None) -> None:
        if num_tokens and self._streaming:
            self._record.token(num_tokens)
        elif num_tokens:
            self._record.completion_tokens += num_tokens
            self._record.last_token = time.perf_counter()
        if queue_seconds is not None:
            self._record.note_queue(self._waited + queue_seconds)
        if ttft_seconds is not None and not self._streaming:
            self._record.note_ttft(self._before + ttft_seconds)


class OpenAIReply(Reply):
    """Answers one OpenAI request through the admission, lease and metrics that every request has."""

    def __init__(
        self,
        gateway: Gateway,
        body: ChatBody | CompletionBody,
        request_id: str,
        caller: Caller,
        session: str | None,
    ) -> None:
        self._chat = isinstance(body, ChatBody)
        super().__init__(
            gateway.exchanges, "/v1/chat/completions" if self._chat else "/v1/completions", request_id
        )
        self._gateway = gateway
        self._body = body
        self._caller = caller
        self._session = session

    async def run(self, exchange: Exchange) -> None:
        gateway, body = self._gateway, self._body
        num_prompts = body.num_prompts if isinstance(body, CompletionBody) else 1
        wish = Wish(
            self._caller,
            body.model,
            "model",
            body.texts,
            prompts=num_prompts,
            max_tokens=body.asked_tokens,
            session=self._session or body.user or None,
            stream=bool(body.stream),
            token_details=body.tells_of_tokens or (body.logprobs is not None and body.logprobs is not False),
            token_prompts=isinstance(body, CompletionBody) and body.has_token_prompts,
        )
        async with enter(gateway, exchange, wish) as passage:
            self._check_bounds()
            for constraint in body.constraints:
                await gateway.grammars.check(constraint, owner=self._caller.tenant)
            exchange.record.sequences = (body.n or 1) * num_prompts
            parts = self._parts()
            if len(parts) < 2:
                await (self._stream(exchange, passage) if body.stream else self._whole(exchange, passage))
                return
            # No shadow is asked: so many sequences would not find room beside the answers of clients.
            answers = await all_of(
                *(
                    self._part(exchange, passage, part, f"{self.request_id}-{place}")
                    for place, part in enumerate(parts)
                )
            )
            await exchange.json({**as_one(answers, parts), "id": self.request_id})

    def _parts(self) -> Sequence[CompletionBody]:
        """What the engine is to get apart; one or none: the request as it is. Raises InvalidRequestError."""
        body, width = self._body, self._gateway.admission.max_running
        if not isinstance(body, CompletionBody):
            return ()
        sequences = (body.n or 1) * body.num_prompts
        if not body.stream:
            return in_parts(body, max_running=width)
        if sequences > max(width, body.n or 1):
            raise InvalidRequestError(
                f"{sequences} answers cannot be streamed at once, at most {width} here; send fewer prompts, or "
                "leave 'stream' out",
                param="prompt",
            )
        return ()

    @asynccontextmanager
    async def _place(
        self, exchange: Exchange, passage: Passage, body: ChatBody | CompletionBody
    ) -> AsyncIterator[_Observer]:
        num_prompts = body.num_prompts if isinstance(body, CompletionBody) else 1
        async with passage.place(
            sequences=(body.n or 1) * num_prompts,
            prompt_tokens=body.num_chars // _CHARS_PER_TOKEN * num_prompts,
            max_tokens=body.asked_tokens or body.default_tokens or passage.max_tokens,
        ) as waited:
            yield _Observer(exchange.record, waited=waited, streaming=bool(body.stream))

    def _asked(self, passage: Passage, body: ChatBody | CompletionBody) -> dict[str, Any]:
        return body.engine_body(
            passage.lease.engine_name, max_tokens=passage.bound, cache_salt=passage.cache_salt
        )

    async def _part(
        self, exchange: Exchange, passage: Passage, body: ChatBody | CompletionBody, request_id: str
    ) -> Mapping[str, Any]:
        """A whole answer to a part of the request, or to all of it."""
        async with self._place(exchange, passage, body) as observer:
            answer = await self._handler(self._asked(passage, body), request_id, observer)
        whole = cast("Mapping[str, Any]", answer)
        if self._gateway.review.reads("answer", passage.subject):
            return await OpenAIAnswers(self._gateway.review, passage.subject).whole(whole)
        return whole

    async def _whole(self, exchange: Exchange, passage: Passage) -> None:
        whole = await self._part(exchange, passage, self._body, self.request_id)
        said = text_of_answer(whole) if self._compares(passage) else None
        await exchange.json({**whole, "id": self.request_id})
        self._mirror(passage, said)

    async def _stream(self, exchange: Exchange, passage: Passage) -> None:
        kept: list[str] | None = [] if self._compares(passage) else None
        async with self._place(exchange, passage, self._body) as observer:
            answer = await self._handler(self._asked(passage, self._body), self.request_id, observer)
            told = cast("AsyncIterator[str]", answer)
            if self._gateway.review.reads("answer", passage.subject):
                told = OpenAIAnswers(self._gateway.review, passage.subject).events(told)
            await self._events(exchange, told, kept)
            self._mirror(passage, text_of_events(kept) if kept is not None else None)

    async def _handler(
        self, asked: Mapping[str, Any], request_id: str, observer: _Observer
    ) -> Mapping[str, Any] | AsyncIterator[str]:
        handlers = self._gateway.engine.openai
        handler = handlers.chat if self._chat else handlers.completions
        return await handler(asked, request_id, observer)

    def _compares(self, passage: Passage) -> bool:
        """Whether the answer is held against a shadow's: a greedy one that nobody changes."""
        reviewed = self._gateway.review.reads("answer", passage.subject)
        return passage.lease.shadow is not None and self._body.temperature == 0 and not reviewed

    def _mirror(self, passage: Passage, said: str | None) -> None:
        if passage.lease.shadow is not None:
            passage.mirror_openai(self._asked(passage, self._body), chat=self._chat, said=said)

    def _check_bounds(self) -> None:
        facts = self._gateway.engine.facts
        check_characters(
            self._body.num_chars,
            context_tokens=facts.context_tokens,
            longest_token_chars=self._gateway.engine.codec.longest_token_chars,
            param="messages" if self._chat else "prompt",
        )
        beyond = next((token for token in self._body.token_ids if token >= facts.vocab_size), None)
        if beyond is not None:
            raise InvalidRequestError(
                f"token id {beyond} is not in the vocabulary of {facts.vocab_size} tokens"
            )

    async def _events(
        self, exchange: Exchange, events: AsyncIterator[str], kept: list[str] | None = None
    ) -> None:
        """Send the events; `kept` gets a copy of each."""
        async with aclosing(cast("Any", events)) as opened:
            async for event in opened:
                if kept is not None:
                    kept.append(event)
                if not exchange.started:
                    await exchange.open_events()
                await exchange.event(event.encode())
        await exchange.close_events()

    async def fail(self, exchange: Exchange, error: HotswapError) -> None:
        payload = orjson.dumps(body_of(error, self.request_id))
        await exchange.event(b"data: " + payload + b"\n\ndata: [DONE]\n\n")
        await exchange.close_events()
