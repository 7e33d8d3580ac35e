"""An engine that is started again when it dies or hangs; the gateway sees one engine all the time.

A request that has sent nothing yet when its engine goes waits for the next one and is given to it, once; one that
has sent something ends with EngineDeadError. The gateway's own calls (urgent requests, scores, verbs on adapters)
do not wait: they reach whatever engine there is, a fresh one that is not ready yet included, or fail.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from serve.engine.protocol import (
    AdapterHandle,
    Engine,
    EngineFacts,
    EngineOutput,
    EngineRequest,
    OpenAIHandlers,
    PromptCodec,
)
from serve.engine.supervised.life import EngineLife
from serve.engine.supervised.openai import SupervisedOpenAI
from serve.engine.supervised.supervisor import EngineFactory, EngineState, SupervisionRules, Supervisor
from serve.errors import EngineDeadError, EngineNotReadyError
from serve.observability.metrics import GatewayMetrics

Restore = Callable[[Engine], Awaitable[None]]


class SupervisedEngine:
    """Implements serve.engine.protocol.Engine."""

    def __init__(self, factory: EngineFactory, rules: SupervisionRules | None = None) -> None:
        """`factory` makes an engine that has not been started; it may return the same one again."""
        self._supervisor = Supervisor(factory, rules or SupervisionRules())
        self._metrics: GatewayMetrics | None = None
        self._facts: EngineFacts | None = None
        self._codec: PromptCodec | None = None
        self._known: dict[str, AdapterHandle] = {}  # given to any life and not taken back, by engine name
        self._openai = SupervisedOpenAI(self._supervisor, self._known, self._note_retry)

    @property
    def state(self) -> EngineState:
        """What the supervisor is doing."""
        return self._supervisor.state

    @property
    def facts(self) -> EngineFacts:
        if self._facts is None:
            raise EngineNotReadyError("the engine has not been started")
        return self._facts

    @property
    def codec(self) -> PromptCodec:
        if self._codec is None:
            raise EngineNotReadyError("the engine has not been started")
        return self._codec

    @property
    def openai(self) -> OpenAIHandlers:
        return self._openai

    async def start(self) -> None:
        await self._supervisor.start()
        engine = self._supervisor.now().engine
        # Of the first life: the factory makes each engine the same, and these are wanted while there is none.
        self._facts, self._codec = engine.facts, engine.codec

    def supervise(
        self,
        restore: Restore,
        *,
        metrics: GatewayMetrics | None = None,
        on_ready: Callable[[], None] = lambda: None,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        """From now on start a new engine when this one is gone, and let `restore` give it its adapters.

        `on_ready` is called after each restart, `on_lost` once when there will be no further one.
        """
        self._metrics = metrics
        self._supervisor.supervise(lambda: restore(self), metrics=metrics, on_ready=on_ready, on_lost=on_lost)

    def finish(self) -> None:
        """Start no more engines: the server is about to end."""
        self._supervisor.finish()

    async def stop(self) -> None:
        await self._supervisor.stop()

    def check_open(self) -> None:
        """Raises EngineNotReadyError while new requests should go elsewhere, EngineDeadError when for good."""
        self._supervisor.check()

    async def check_health(self) -> None:
        self._supervisor.check()

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        life = self._supervisor.now() if request.urgent else await self._supervisor.ready()
        for may_retry in (not request.urgent, False):
            sent = False
            try:
                fitting = await self._fit(request, life)
                life.check()
                async with aclosing(life.engine.generate(fitting)) as outputs:
                    async for output in outputs:
                        life.watchdog.hear()
                        sent = True
                        yield output
                return
            except EngineDeadError:
                life.watchdog.alarm()
                if sent or not may_retry:
                    raise
            life = await self._supervisor.ready(after=life)
            self._note_retry()

    async def _fit(self, request: EngineRequest, life: EngineLife) -> EngineRequest:
        """The request with the adapter's handle of this life: a version may have another id after a restart."""
        if request.adapter is None or life.adapters.get(request.adapter.name) == request.adapter:
            return request
        handle = await life.handle(request.adapter.name, self._known.get(request.adapter.name))
        return request if handle is None else replace(request, adapter=handle)

    async def score(
        self,
        prompt_token_ids: Sequence[int],
        continuation_token_ids: Sequence[int],
        adapter: AdapterHandle | None,
    ) -> list[float]:
        life = self._supervisor.now()
        return await life.call(life.engine.score(prompt_token_ids, continuation_token_ids, adapter))

    async def load_adapter(self, adapter: AdapterHandle) -> None:
        await self._supervisor.now().load(adapter)
        self._known[adapter.name] = adapter

    async def unload_adapter(self, adapter: AdapterHandle) -> None:
        self._known.pop(adapter.name, None)
        life = self._supervisor.life
        if life is not None:  # or else what held it is gone
            await life.unload(adapter, refused=self._supervisor.state is EngineState.RESTORING)

    async def resident_adapters(self) -> set[int]:
        life = self._supervisor.life
        if life is None:
            return set()
        try:
            return await life.call(life.engine.resident_adapters())
        except EngineDeadError:
            return set()

    def generated_tokens(self, request_id: str) -> int:
        life = self._supervisor.life
        return life.engine.generated_tokens(request_id) if life is not None else 0

    def _note_retry(self) -> None:
        if self._metrics is not None:
            self._metrics.retried_requests.inc()
