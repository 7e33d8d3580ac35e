"""Asks a shadow version what the live one was just asked, and compares what it says; no client ever notices.

A copy is made when the live answer is complete, so that it delays nothing of it. It runs beside admission, at no
cost to anybody's quota, in places of its own that are few, and only while the engine has nothing better to do: it
is dropped when requests wait or the batch is full, and cut off when that comes about, when its version leaves, at
its time limit and at shutdown. Its answer goes nowhere; what is known of it is in the metrics `hotswap_shadow_*`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Literal, Protocol

from bases.errors import HotswapError
from serve.engine.protocol import AdapterHandle, Engine, EngineOutput, EngineRequest
from serve.errors import GenerationFailedError
from serve.lifecycle.openai_text import SilentObserver, text_of_event
from serve.lifecycle.state import AdapterState
from serve.lifecycle.version import ManagedVersion
from serve.observability.metrics import GatewayMetrics
from serve.running import RunningRequests

logger = logging.getLogger("hotswap.shadow")

# Of the engine's batch; at least one.
BUDGET_SHARE = 1 / 8

Outcome = Literal["done", "failed", "dropped", "cut_off"]
Units = Sequence[Hashable]  # token ids, or characters where tokens are not known


class Room(Protocol):
    """What the gateway's own requests leave over: serve.admission.admission.Admission."""

    @property
    def running(self) -> int:
        """Sequences in the engine."""

    @property
    def queued_requests(self) -> int:
        """Requests that wait."""

    @property
    def draining(self) -> bool:
        """True once no new work is taken."""


@dataclass(frozen=True, slots=True)
class _Copy:
    """One request to a shadow."""

    request_id: str
    shadow: ManagedVersion
    sequences: int
    ask: Callable[[AdapterHandle, str], AsyncGenerator[Units, None]]  # pieces of the first sequence
    said: Units | None  # by the live version; None: sampled, so not to be compared


class Shadows:
    """All shadow requests of one gateway. Belongs to one event loop."""

    def __init__(
        self,
        engine: Engine,
        room: Room,
        running: RunningRequests,
        metrics: GatewayMetrics,
        *,
        max_seconds: float,
    ) -> None:
        """`max_seconds` is how long one may take."""
        self._engine = engine
        self._room = room
        self._running = running
        self._metrics = metrics
        self._max_seconds = max_seconds
        self._sequences = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def sequences(self) -> int:
        """Sequences of shadows in the engine now."""
        return self._sequences

    @property
    def budget(self) -> int:
        """How many there may be."""
        return max(1, int(self._engine.facts.max_num_seqs * BUDGET_SHARE))

    async def watch(
        self, outputs: AsyncGenerator[EngineOutput, None], request: EngineRequest, shadow: ManagedVersion
    ) -> AsyncGenerator[EngineOutput, None]:
        """Hand the live answer on as it comes; when it is complete, ask `shadow` the same."""
        said: list[int] = []
        complete = False
        async with aclosing(outputs):
            async for output in outputs:
                for delta in output.deltas:
                    if delta.index == 0:
                        said += delta.token_ids
                        complete = delta.finish_reason in ("stop", "length")
                yield output
        if not complete:
            return

        async def ask(handle: AdapterHandle, request_id: str) -> AsyncGenerator[Units, None]:
            sampling = replace(request.sampling, logprobs=None)
            copied = replace(request, request_id=request_id, sampling=sampling, adapter=handle, stream=True)
            async with aclosing(self._engine.generate(copied)) as answer:
                async for output in answer:
                    first = [delta for delta in output.deltas if delta.index == 0]
                    if any(delta.finish_reason in ("abort", "error") for delta in first):
                        raise GenerationFailedError("the engine ended a shadow's answer")
                    yield [token for delta in first for token in delta.token_ids]

        greedy = request.sampling.temperature == 0
        self._begin(
            _Copy(request.request_id, shadow, request.sampling.n, ask, tuple(said) if greedy else None)
        )

    def mirror_openai(
        self,
        request_id: str,
        body: Mapping[str, Any],
        shadow: ManagedVersion,
        *,
        chat: bool,
        sequences: int,
        said: str | None,
    ) -> None:
        """Ask `shadow` what OpenAI's handlers have just answered; `body` is what they were given.

        `said` is the text of the first answer; None: it was sampled, or is not known.
        """

        async def ask(handle: AdapterHandle, request_id: str) -> AsyncGenerator[Units, None]:
            handlers = self._engine.openai
            handler = handlers.chat if chat else handlers.completions
            # stream_options would add an event without a choice, and nothing that is looked at here.
            asked = {key: value for key, value in body.items() if key != "stream_options"}
            events: Any = await handler(
                {**asked, "model": handle.name, "stream": True}, request_id, SilentObserver()
            )
            async with aclosing(events) as opened:
                async for event in opened:
                    yield text_of_event(event)

        self._begin(_Copy(request_id, shadow, sequences, ask, said))

    async def close(self) -> None:
        """End all shadow requests and begin no more. Idempotent."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, copy: _Copy) -> None:
        """Ask, if there is room. The caller's lease is still open: the shadow cannot go in between."""
        if not self._may_run(copy.shadow) or self._sequences + copy.sequences > self.budget:
            self._count(copy, "dropped")
            return
        held = ExitStack()
        held.enter_context(copy.shadow.use())
        self._sequences += copy.sequences
        task = asyncio.create_task(self._run(copy), name=f"shadow of {copy.request_id}")
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            # Here and not in the task, which may be cancelled before its first step.
            self._tasks.discard(task)
            self._sequences -= copy.sequences
            held.close()
            if task.cancelled():
                self._count(copy, "cut_off")

        task.add_done_callback(ended)

    def _may_run(self, shadow: ManagedVersion) -> bool:
        room = self._room
        return not (
            self._closed
            or room.draining
            or room.queued_requests
            or room.running + self._sequences >= self._engine.facts.max_num_seqs
            or shadow.state is not AdapterState.LIVE
        )

    async def _run(self, copy: _Copy) -> None:
        request_id = f"shadow-{copy.request_id}"
        try:
            # Tracked, so that whoever has to end what runs on a version ends this too.
            with self._running.track(request_id) as running:
                running.version = str(copy.shadow.version)
                async with asyncio.timeout(self._max_seconds):
                    outcome = await self._hear(copy, request_id)
        except TimeoutError:
            outcome = "cut_off"
        except HotswapError as error:
            outcome = "cut_off" if running.cause is not None else "failed"
            logger.info("shadow %s did not answer: %s", copy.shadow.version, error)
        except Exception:  # the background boundary: nobody waits for a shadow
            outcome = "failed"
            logger.exception("shadow %s failed", copy.shadow.version)
        self._count(copy, outcome)

    async def _hear(self, copy: _Copy, request_id: str) -> Outcome:
        started, ttft_seconds = time.perf_counter(), None
        heard: list[Hashable] = []
        async with aclosing(copy.ask(copy.shadow.handle, request_id)) as pieces:
            async for piece in pieces:
                if piece and ttft_seconds is None:
                    ttft_seconds = time.perf_counter() - started
                heard += piece
                if not self._goes_on(copy.shadow):
                    return "cut_off"
        pair = self._metrics.pair(str(copy.shadow.version))
        if ttft_seconds is not None:
            self._metrics.shadow_ttft_seconds.labels(*pair).observe(ttft_seconds)
        if copy.said is not None:
            share = agreement(copy.said, heard)
            self._metrics.shadow_agreement.labels(*pair).observe(share)
            self._metrics.shadow_compared.labels(*pair, "equal" if share == 1 else "different").inc()
        return "done"

    def _goes_on(self, shadow: ManagedVersion) -> bool:
        room = self._room
        return not (room.draining or room.queued_requests or shadow.state is not AdapterState.LIVE)

    def _count(self, copy: _Copy, outcome: Outcome) -> None:
        self._metrics.shadow_requests.labels(*self._metrics.pair(str(copy.shadow.version)), outcome).inc()


def agreement(one: Units, other: Units) -> float:
    """Share of the longer answer up to the first difference; 1 for equal ones."""
    longest = max(len(one), len(other))
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
    return same / longest if longest else 1.0
