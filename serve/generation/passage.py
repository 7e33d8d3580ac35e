"""The path of every generation request through the gateway, whatever its dialect.

caller -> quota -> lease of a version -> review of the prompt -> tokens -> place in the engine -> answer. Each
step is a block that closes however the request ends, so that nothing it holds can leak.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from serve.access.caller import Caller
from serve.access.quotas import Allowance
from serve.admission.fair_queue import Flow
from serve.engine.protocol import EngineOutput, EngineRequest
from serve.errors import InvalidRequestError
from serve.gateway import Gateway
from serve.http.exchange import Exchange
from serve.lifecycle.board import Lease
from serve.review.subject import Subject


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request asks for, before it is tokenised."""

    caller: Caller
    reference: str | None  # the base (None or its name), an alias or a pinned version
    param: str  # the field that names it
    texts: tuple[str, ...]  # what the client wrote
    prompts: int = 1
    max_tokens: int | None = None  # per answer, if the client says so
    session: str | None = None  # requests of one session stay with one version of a canary
    stream: bool = False
    token_details: bool = False  # log probabilities or likely tokens, which tell of text that is held back
    token_prompts: bool = False  # token ids in place of a text


class Passage:
    """One request that was let in."""

    def __init__(
        self, gateway: Gateway, exchange: Exchange, wish: Wish, lease: Lease, allowance: Allowance
    ) -> None:
        self.gateway = gateway
        self.lease = lease
        self.caller = wish.caller
        self._exchange = exchange
        self._allowance = allowance
        self._flow = Flow(wish.caller.tenant, lease.alias, wish.caller.weight)
        self._charged_tokens = 0

    @property
    def subject(self) -> Subject:
        """What a reviewer is told."""
        return Subject(
            request_id=self._exchange.running.request_id,
            route=self._exchange.record.route,
            caller=self.caller.name,
            tenant=self.caller.tenant,
            adapter=self.lease.alias,
            version=self.lease.version,
        )

    @property
    def max_tokens(self) -> int:
        """Tokens of an answer when the client names no number."""
        ceiling = self.caller.limits.max_tokens
        default = self.gateway.max_tokens_default
        return default if ceiling is None else min(default, ceiling)

    @property
    def bound(self) -> int | None:
        """Tokens of an answer that a caller with limits may have without asking for a number; None: no bound."""
        limits = self.caller.limits
        counted = limits.max_tokens is not None or limits.tokens_per_minute is not None
        return self.max_tokens if counted else None

    @property
    def cache_salt(self) -> str | None:
        """Only requests with the same salt share a prefix cache."""
        return self.gateway.salts.of(self.caller)

    @asynccontextmanager
    async def place(self, *, sequences: int, prompt_tokens: int, max_tokens: int) -> AsyncIterator[float]:
        """Hold places in the engine for one prompt; yields the seconds spent waiting.

        `max_tokens` is what each sequence may generate. Raises RateLimitedError, QueueFullError, DrainingError.
        """
        answer_tokens = max_tokens * sequences
        record = self._exchange.record
        self._allowance.reserve(prompt_tokens, answer_tokens)
        self._exchange.headers.update(self._allowance.headers)
        asked = record.seconds
        async with self.gateway.admission.slot(
            sequences=sequences, prompt_tokens=prompt_tokens, answer_tokens=answer_tokens, flow=self._flow
        ) as waited:
            record.note_place(asked_seconds=asked, waited_seconds=waited)
            self._charged_tokens += answer_tokens
            yield waited

    def generate(self, request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        """What the engine answers; a shadow, if there is one, is asked the same when it is complete."""
        outputs = self.gateway.engine.generate(request)
        if self.lease.shadow is None:
            return outputs
        return self.gateway.shadows.watch(outputs, request, self.lease.shadow)

    def mirror_openai(self, body: Mapping[str, Any], *, chat: bool, said: str | None) -> None:
        """Ask the shadow, if there is one, what OpenAI's handlers have just answered (Shadows.mirror_openai)."""
        if self.lease.shadow is not None:
            self.gateway.shadows.mirror_openai(
                self._exchange.running.request_id,
                body,
                self.lease.shadow,
                chat=chat,
                sequences=self._exchange.record.sequences,
                said=said,
            )

    def count_unseen(self) -> None:
        """Note what the engine has generated of an answer that is about to be ended before its time."""
        record = self._exchange.record
        now = self.gateway.engine.generated_tokens(self._exchange.running.request_id)
        # Of a stream each token is noted as it comes; of a whole answer when it is complete.
        record.completion_tokens = (
            max(record.completion_tokens, now) if record.streaming else record.completion_tokens + now
        )

    def settle(self) -> None:
        """Give back what the answer did not use of the caller's limits and of its share of the engine.

        An answer that was longer than was foreseen (one without a bound) is paid for with the next turn.
        """
        record = self._exchange.record
        self._allowance.settle(record.completion_tokens, record.prompt_tokens or None)
        unused = self._charged_tokens - record.completion_tokens
        if unused > 0:
            self.gateway.admission.refund(self._flow, unused)
        elif self._charged_tokens:
            self.gateway.admission.charge(self._flow, -unused)


@asynccontextmanager
async def enter(gateway: Gateway, exchange: Exchange, wish: Wish) -> AsyncIterator[Passage]:
    """Let a request in, with a lease on the version that answers it.

    Raises EngineNotReadyError, DrainingError, QueueFullError, RateLimitedError, UnknownModelError,
    ReviewRefusedError.
    """
    exchange.record.note_caller(wish.caller)
    exchange.record.streaming = wish.stream
    gateway.engine.check_open()
    asked = wish.reference if wish.reference != gateway.adapters.board.base_name else None
    alias = asked.partition("@")[0] if asked is not None else None
    flow = Flow(wish.caller.tenant, alias, wish.caller.weight)  # as far as can be told before the lease
    gateway.admission.check_open(requests=wish.prompts, flow=flow)
    with (
        gateway.quotas.admit(wish.caller) as allowance,
        gateway.adapters.board.lease(
            wish.reference, param=wish.param, caller=wish.caller, session=wish.session
        ) as lease,
    ):
        exchange.use(lease)
        exchange.headers.update(allowance.headers)
        passage = Passage(gateway, exchange, wish, lease, allowance)
        exchange.running.before_abort = passage.count_unseen
        try:
            await lease.wait_proven()
            _check_ceiling(wish)
            if gateway.review.active:
                _check_reviewable(gateway, passage.subject, wish)
                await gateway.review.prompt(passage.subject, wish.texts)
            yield passage
        finally:
            passage.settle()


def _check_reviewable(gateway: Gateway, subject: Subject, wish: Wish) -> None:
    if wish.token_details and gateway.review.reads("answer", subject):
        raise InvalidRequestError(
            "answers are reviewed here, and the tokens' own texts would go past it: leave out log probabilities "
            "and lists of likely tokens",
            param="logprobs",
        )
    if wish.token_prompts and gateway.review.reads("prompt", subject):
        raise InvalidRequestError("prompts are reviewed here: send text, not token ids", param="prompt")


def _check_ceiling(wish: Wish) -> None:
    ceiling = wish.caller.limits.max_tokens
    if ceiling is not None and wish.max_tokens is not None and wish.max_tokens > ceiling:
        raise InvalidRequestError(
            f"this key may ask for at most {ceiling} tokens of answer, not {wish.max_tokens}",
            param="max_tokens",
        )
