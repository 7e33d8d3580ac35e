"""The one way of a generation request through the gateway, whatever its dialect.

caller -> quota -> lease of a version -> review of the prompt -> tokens -> place in the engine -> answer. Each
step is a block that closes however the request ends, so that nothing it holds can leak.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from serve.access.caller import Caller
from serve.access.quotas import Allowance
from serve.admission import Flow
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


class Passage:
    """One request that was let in."""

    def __init__(
        self, gateway: Gateway, exchange: Exchange, wish: Wish, lease: Lease, allowance: Allowance
    ) -> None:
        self.gateway = gateway
        self.lease = lease
        self.caller = wish.caller
        self._exchange = exchange
        self._wish = wish
        self._allowance = allowance

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

    @asynccontextmanager
    async def place(self, *, sequences: int, prompt_tokens: int, max_tokens: int) -> AsyncIterator[float]:
        """Hold places in the engine for one prompt; yields the seconds spent waiting.

        `max_tokens` is what each sequence may generate. Raises RateLimitedError, QueueFullError, DrainingError.
        """
        self._allowance.reserve(prompt_tokens, max_tokens * sequences)
        flow = Flow(self.caller.tenant, self.lease.alias, self.caller.weight)
        async with self.gateway.admission.slot(
            sequences=sequences, prompt_tokens=prompt_tokens, flow=flow
        ) as waited:
            yield waited


@asynccontextmanager
async def enter(gateway: Gateway, exchange: Exchange, wish: Wish) -> AsyncIterator[Passage]:
    """Let a request in, with a lease on the version that answers it.

    Raises EngineNotReadyError, DrainingError, QueueFullError, RateLimitedError, UnknownModelError,
    ReviewRefusedError.
    """
    exchange.record.note_caller(wish.caller)
    gateway.engine.check_open()
    gateway.admission.check_open(requests=wish.prompts)
    with gateway.quotas.admit(wish.caller) as allowance:
        try:
            with gateway.adapters.board.lease(
                wish.reference, param=wish.param, caller=wish.caller, session=wish.session
            ) as lease:
                exchange.use(lease)
                exchange.headers.update(allowance.headers)
                passage = Passage(gateway, exchange, wish, lease, allowance)
                _check_ceiling(wish)
                if gateway.review.active:
                    await gateway.review.prompt(passage.subject, wish.texts)
                yield passage
        finally:
            allowance.settle(exchange.record.completion_tokens)


def _check_ceiling(wish: Wish) -> None:
    ceiling = wish.caller.limits.max_tokens
    if ceiling is not None and wish.max_tokens is not None and wish.max_tokens > ceiling:
        raise InvalidRequestError(
            f"this key may ask for at most {ceiling} tokens of answer, not {wish.max_tokens}",
            param="max_tokens",
        )
