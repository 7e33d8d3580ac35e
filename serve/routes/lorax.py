"""`/lorax`: the generate dialect of LoRAX and TGI, so that their clients work with another base URL alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Request
from starlette.responses import PlainTextResponse, Response

from bases.errors import HotswapError
from serve.access.caller import Caller
from serve.engine.protocol import EngineRequest, TokenLogprob
from serve.errors import InvalidRequestError
from serve.gateway import Gateway
from serve.generation.generation import INLINE_CHARS, PromptAnswer, SequenceAnswer, check_finished, collect
from serve.generation.limits import check_characters, tokens_to_generate
from serve.generation.passage import Passage, Wish, enter
from serve.generation.pieces import Piece, Pieces
from serve.http.errors import body_of, status_of
from serve.http.exchange import Exchange, Reply
from serve.http.json_chunks import Rows
from serve.http.tgi_errors import PREFIX, tgi_stream_error
from serve.routes.dependencies import CallerDep, GatewayDep, KeyedRoute, RequestIdDep, SessionDep
from serve.routes.documentation import LORAX_ERRORS, LORAX_EVENTS, LORAX_WIRE_ERRORS, lorax_errors
from serve.routes.health import readyz
from serve.schemas.lorax import LoraxAnswer, LoraxBody, LoraxInfo, LoraxStreamBody
from serve.schemas.sampling import MAX_SEQUENCES, MAX_STOPS, ModelReference

HIDDEN_TOKEN_ID = -1  # in streams that are reviewed

router = APIRouter(prefix=PREFIX, route_class=KeyedRoute, tags=["lorax"])

_ROOT: dict[int | str, dict[str, Any]] = {
    200: {"model": list[LoraxAnswer], "description": "A list of one answer.", "content": LORAX_EVENTS},
    **LORAX_ERRORS,
}


@router.post(
    "/generate",
    summary="Answer a prompt whole, as LoRAX and TGI do",
    response_model=None,
    responses={200: {"model": LoraxAnswer, "description": "The answer."}, **LORAX_ERRORS},
)
async def generate(
    body: LoraxBody, gateway: GatewayDep, request_id: RequestIdDep, caller: CallerDep, session: SessionDep
) -> Response:
    """Continue `inputs`; `parameters.adapter_id` is an alias or a pinned version."""
    return LoraxReply(gateway, body, "/lorax/generate", request_id, caller, session)


@router.post(
    "/generate_stream",
    summary="Answer a prompt token by token, as LoRAX and TGI do",
    response_model=None,
    responses={200: {"description": "The tokens.", "content": LORAX_EVENTS}, **LORAX_ERRORS},
)
async def generate_stream(
    body: LoraxStreamBody,
    gateway: GatewayDep,
    request_id: RequestIdDep,
    caller: CallerDep,
    session: SessionDep,
) -> Response:
    """The same as server-sent events, one for each token; the last one has `generated_text`."""
    return LoraxReply(gateway, body, "/lorax/generate_stream", request_id, caller, session, stream=True)


@router.post("", summary="What the clients of LoRAX and TGI send", response_model=None, responses=_ROOT)
async def root(
    body: LoraxStreamBody,
    gateway: GatewayDep,
    request_id: RequestIdDep,
    caller: CallerDep,
    session: SessionDep,
) -> Response:
    """`stream` chooses between a list of one answer and events."""
    return LoraxReply(
        gateway, body, "/lorax", request_id, caller, session, stream=bool(body.stream), in_list=True
    )


@router.post(
    "/models/{adapter:path}",
    summary="The same, with the adapter in the address",
    response_model=None,
    responses=_ROOT,
)
async def root_of_adapter(
    adapter: Annotated[ModelReference, Path(description="Alias or pinned version.")],
    body: LoraxStreamBody,
    gateway: GatewayDep,
    request_id: RequestIdDep,
    caller: CallerDep,
    session: SessionDep,
) -> Response:
    """For TGI's own client, which has no `adapter_id`."""
    if body.asked.reference not in (None, adapter):
        raise InvalidRequestError(
            "the address and 'parameters.adapter_id' name different adapters; name one of them",
            param="parameters.adapter_id",
        )
    return LoraxReply(
        gateway,
        body,
        "/lorax",
        request_id,
        caller,
        session,
        stream=bool(body.stream),
        in_list=True,
        adapter=adapter,
    )


@router.get("/info", summary="What serves here", responses={**LORAX_WIRE_ERRORS, **lorax_errors(401, 503)})
async def info(request: Request, gateway: GatewayDep, caller: CallerDep) -> LoraxInfo:
    """The base and its bounds."""
    del caller
    facts = gateway.engine.facts
    return LoraxInfo(
        model_id=gateway.adapters.board.base_name,
        model_sha=gateway.adapters.rules.target.fingerprint,
        model_dtype=facts.dtype,
        model_pipeline_tag="text-generation",
        max_concurrent_requests=gateway.admission.max_running + gateway.admission.max_queued_requests,
        max_best_of=MAX_SEQUENCES,
        max_stop_sequences=MAX_STOPS,
        max_input_length=facts.context_tokens - 1,
        max_total_tokens=facts.context_tokens,
        version=str(request.app.version),
    )


@router.get(
    "/health",
    summary="New work is taken",
    response_class=PlainTextResponse,
    responses={**LORAX_WIRE_ERRORS, **lorax_errors(503)},
)
async def health(request: Request) -> str:
    """200 as /readyz has it."""
    await readyz(request)
    return ""


class LoraxReply(Reply):
    """Answers one request of this dialect."""

    def __init__(
        self,
        gateway: Gateway,
        body: LoraxBody | LoraxStreamBody,
        route: str,
        request_id: str,
        caller: Caller,
        session: str | None,
        *,
        stream: bool = False,
        in_list: bool = False,
        adapter: str | None = None,
    ) -> None:
        super().__init__(gateway.exchanges, route, request_id)
        self._gateway = gateway
        self._inputs = body.inputs
        self._asked = body.asked
        self._caller = caller
        self._session = session
        self._streams = stream
        self._in_list = in_list
        self._adapter = adapter or body.asked.reference
        self._reviewed = False

    async def run(self, exchange: Exchange) -> None:
        gateway, asked = self._gateway, self._asked
        if self._streams and asked.num_sequences > 1:
            raise InvalidRequestError("'best_of' above 1 cannot be streamed", param="parameters.best_of")
        wish = Wish(
            self._caller,
            self._adapter,
            "parameters.adapter_id",
            (self._inputs,),
            max_tokens=asked.max_new_tokens,
            session=self._session,
            stream=self._streams,
            token_details=bool(asked.top_n_tokens or asked.return_k_alternatives),
        )
        async with enter(gateway, exchange, wish) as passage:
            self._reviewed = gateway.review.reads("answer", passage.subject)
            await gateway.grammars.check(asked.constraint, owner=self._caller.tenant)
            request = await self._request(passage)
            record = exchange.record
            record.prompt_tokens, record.sequences = len(request.prompt_token_ids), request.sampling.n
            if self._streams:
                await self._stream(exchange, passage, request)
            else:
                await self._whole(exchange, passage, request)

    async def _request(self, passage: Passage) -> EngineRequest:
        context_tokens = self._gateway.engine.facts.context_tokens
        prompt = await self._encode(context_tokens)
        max_tokens = tokens_to_generate(
            len(prompt),
            self._asked.max_new_tokens,
            default=passage.max_tokens,
            context_tokens=context_tokens,
            param="inputs",
        )
        return EngineRequest(
            request_id=self.request_id,
            prompt_token_ids=prompt,
            sampling=self._asked.sampling(max_tokens, stream=self._streams),
            adapter=passage.lease.handle,
            stream=self._streams,
            cache_salt=passage.cache_salt,
        )

    async def _encode(self, context_tokens: int) -> list[int]:
        codec, inputs, asked = self._gateway.engine.codec, self._inputs, self._asked
        if asked.truncate is None:
            check_characters(
                len(inputs),
                context_tokens=context_tokens,
                longest_token_chars=codec.longest_token_chars,
                param="inputs",
            )

        def encode() -> list[int]:
            if asked.apply_chat_template:
                return codec.encode_chat([{"role": "user", "content": inputs}])
            # The clients of this dialect write the template themselves, as its servers expect.
            return codec.encode(inputs, parse_special=True)

        prompt = encode() if len(inputs) <= INLINE_CHARS else await asyncio.to_thread(encode)
        return prompt if asked.truncate is None else prompt[-asked.truncate :]

    async def _whole(self, exchange: Exchange, passage: Passage, request: EngineRequest) -> None:
        gateway, record = self._gateway, exchange.record
        async with _place(passage, request) as waited:
            before = record.seconds
            answer = await collect(passage, request)
            record.completion_tokens = answer.completion_tokens  # whatever becomes of it
            record.note_queue(waited + (answer.queue_seconds or 0.0))
            if answer.ttft_seconds is not None:
                record.note_ttft(before + answer.ttft_seconds)
            answer.sequences.sort(key=_mean_logprob, reverse=True)
            for sequence in answer.sequences:
                let_through = await gateway.review.answer(passage.subject, sequence.text)
                if let_through != sequence.text:
                    sequence.text, sequence.logprobs = let_through, []  # tokens would tell what was taken out
        record.last_token = time.perf_counter()
        body = self._answer(answer)
        await exchange.json([body] if self._in_list else body)

    def _answer(self, answer: PromptAnswer) -> dict[str, Any]:
        best, *others = answer.sequences
        body: dict[str, Any] = {"generated_text": self._text(best.text)}
        if self._asked.details:
            body["details"] = {
                "prompt_tokens": answer.prompt_tokens,
                "skipped_tokens": 0,
                **self._sequence_fields(best),
            }
            if others:
                body["details"]["best_of_sequences"] = [
                    {"generated_text": self._text(other.text), **self._sequence_fields(other)}
                    for other in others
                ]
        return body

    def _sequence_fields(self, sequence: SequenceAnswer) -> dict[str, Any]:
        fields: dict[str, Any] = {**self._end(sequence), "prefill": []}
        fields["tokens"] = Rows(sequence.logprobs, self._token)
        if self._asked.top_n_tokens:
            fields["top_tokens"] = Rows(sequence.logprobs, self._top_tokens)
        return fields

    def _end(self, sequence: SequenceAnswer) -> dict[str, Any]:
        return {
            "finish_reason": finish_reason(sequence),
            "generated_tokens": sequence.num_tokens,
            "seed": self._asked.seed if self._asked.samples else None,
        }

    async def _stream(self, exchange: Exchange, passage: Passage, request: EngineRequest) -> None:
        gateway, record = self._gateway, exchange.record
        sequence, pieces = SequenceAnswer(0), Pieces(gateway.engine.codec.special_ids)
        review = gateway.review.stream(passage.subject)
        async with _place(passage, request) as waited, aclosing(passage.generate(request)) as outputs:
            async for output in outputs:
                if not exchange.started and not self._reviewed:
                    await exchange.open_events()
                record.note_queue(waited + (output.queue_seconds or 0.0))
                for delta in output.deltas:
                    if delta.token_ids:
                        record.token(len(delta.token_ids))
                    sequence.add(delta)
                    pieces.add(delta, await review.feed(delta.text))
                if sequence.finish_reason is None:
                    for piece in pieces.due():
                        if not exchange.started:
                            await exchange.open_events()
                        await exchange.event(_event(self._piece_fields(piece)))
            check_finished([sequence])
        *others, last = pieces.rest(await review.finish())
        if not exchange.started:
            await exchange.open_events()
        for piece in others:
            await exchange.event(_event(self._piece_fields(piece)))
        done = {**self._piece_fields(last), "generated_text": self._text(pieces.text)}
        if self._asked.details:
            done["details"] = {"prompt_tokens": record.prompt_tokens, **self._end(sequence)}
        await exchange.event(_event(done))
        await exchange.close_events()

    async def fail(self, exchange: Exchange, error: HotswapError) -> None:
        body = body_of(error, self.request_id)
        await exchange.event(_event(tgi_stream_error(status_of(error), body)))
        await exchange.close_events()

    def _text(self, text: str) -> str:
        return self._inputs + text if self._asked.return_full_text else text

    def _piece_fields(self, piece: Piece) -> dict[str, Any]:
        token = {**self._token(piece.token), "text": piece.text, "special": piece.special}
        if self._reviewed:
            token |= {"id": HIDDEN_TOKEN_ID, "logprob": 0.0}  # the token would tell what was taken out
        fields: dict[str, Any] = {"token": token, "generated_text": None, "details": None}
        if self._asked.top_n_tokens:
            fields["top_tokens"] = self._top_tokens(piece.token)
        return fields

    def _token(self, token: TokenLogprob) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "id": token.token_id,
            "text": token.text,
            "logprob": token.logprob,
            "special": self._is_special(token.token_id),
        }
        if self._asked.return_k_alternatives:
            fields["alternative_tokens"] = [
                {"id": token_id, "text": text, "logprob": logprob}
                for token_id, text, logprob in token.top[: self._asked.return_k_alternatives]
            ]
        return fields

    def _top_tokens(self, token: TokenLogprob) -> list[dict[str, Any]]:
        return [
            {"id": token_id, "text": text, "logprob": logprob, "special": self._is_special(token_id)}
            for token_id, text, logprob in token.top[: self._asked.top_n_tokens]
        ]

    def _is_special(self, token_id: int) -> bool:
        return token_id in self._gateway.engine.codec.special_ids


def finish_reason(sequence: SequenceAnswer) -> str:
    """Why a sequence ended, in the words of this dialect."""
    if sequence.finish_reason == "length":
        return "length"
    return "stop_sequence" if isinstance(sequence.stop_reason, str) else "eos_token"


def _mean_logprob(sequence: SequenceAnswer) -> float:
    logprobs = sequence.logprobs
    return sum(token.logprob for token in logprobs) / len(logprobs) if logprobs else 0.0


def _place(passage: Passage, request: EngineRequest) -> AbstractAsyncContextManager[float]:
    return passage.place(
        sequences=request.sampling.n,
        prompt_tokens=len(request.prompt_token_ids),
        max_tokens=request.sampling.max_tokens,
    )


def _event(payload: Mapping[str, Any]) -> bytes:
    return b"data:" + orjson.dumps(payload) + b"\n\n"
