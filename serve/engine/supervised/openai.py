"""OpenAI requests over the lives of an engine: the same promise as SupervisedEngine.generate gives.

What a handler reports of a try that came to nothing is not counted: reports wait until something was sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any, cast

from serve.engine.protocol import AdapterHandle, GenerationObserver
from serve.engine.supervised.life import EngineLife
from serve.engine.supervised.supervisor import Supervisor
from serve.engine.supervised.watchdog import Watchdog
from serve.errors import EngineDeadError

Answer = Mapping[str, Any] | AsyncIterator[str]


class _Report:
    """Holds what is observed of one try until `keep`; implements GenerationObserver."""

    def __init__(self, observer: GenerationObserver, watchdog: Watchdog) -> None:
        self._observer = observer
        self._watchdog = watchdog
        self._held: list[Callable[[], None]] | None = []

    def prompt(self, num_tokens: int) -> None:
        self._say(lambda: self._observer.prompt(num_tokens))

    def output(self, num_tokens: int, queue_seconds: float | None, ttft_seconds: float | None) -> None:
        self._watchdog.hear()
        self._say(lambda: self._observer.output(num_tokens, queue_seconds, ttft_seconds))

    def keep(self) -> None:
        """This try is the one that answers."""
        held, self._held = self._held, None
        for say in held or ():
            say()

    def _say(self, say: Callable[[], None]) -> None:
        if self._held is None:
            say()
        else:
            self._held.append(say)


class SupervisedOpenAI:
    """Implements serve.engine.protocol.OpenAIHandlers."""

    def __init__(
        self, supervisor: Supervisor, known: Mapping[str, AdapterHandle], on_retry: Callable[[], None]
    ) -> None:
        """`known` has the adapters that should be in the engine, by engine name."""
        self._supervisor = supervisor
        self._known = known
        self._on_retry = on_retry

    async def chat(
        self, body: Mapping[str, Any], request_id: str, observer: GenerationObserver
    ) -> Mapping[str, Any] | AsyncIterator[str]:
        return await self._answer("chat", body, request_id, observer)

    async def completions(
        self, body: Mapping[str, Any], request_id: str, observer: GenerationObserver
    ) -> Mapping[str, Any] | AsyncIterator[str]:
        return await self._answer("completions", body, request_id, observer)

    async def _answer(
        self, route: str, body: Mapping[str, Any], request_id: str, observer: GenerationObserver
    ) -> Answer:
        life = await self._supervisor.ready()
        report = _Report(observer, life.watchdog)
        try:
            answer = await self._ask(life, route, body, request_id, report)
        except EngineDeadError:
            life = await self._next(life)
            report = _Report(observer, life.watchdog)
            try:
                answer = await self._ask(life, route, body, request_id, report)
            except EngineDeadError:
                life.watchdog.alarm()
                raise
            return self._kept(answer, life, report)
        if isinstance(answer, Mapping):
            report.keep()
            return answer

        async def again() -> AsyncIterator[str]:
            fresh = await self._next(life)
            second = _Report(observer, fresh.watchdog)
            events = await self._ask(fresh, route, body, request_id, second)
            return cast("AsyncIterator[str]", self._kept(events, fresh, second))

        return _events(answer, life, report, again)

    async def _ask(
        self, life: EngineLife, route: str, body: Mapping[str, Any], request_id: str, report: _Report
    ) -> Answer:
        name = str(body["model"])
        if name not in life.adapters:
            await life.handle(name, self._known.get(name))
        life.check()
        handlers = life.engine.openai
        handler = handlers.chat if route == "chat" else handlers.completions
        return await handler(body, request_id, report)

    async def _next(self, life: EngineLife) -> EngineLife:
        life.watchdog.alarm()
        following = await self._supervisor.ready(after=life)
        self._on_retry()
        return following

    def _kept(self, answer: Answer, life: EngineLife, report: _Report) -> Answer:
        """The answer of the last try."""
        if isinstance(answer, Mapping):
            report.keep()
            return answer
        return _events(answer, life, report, None)


async def _events(
    events: AsyncIterator[str],
    life: EngineLife,
    report: _Report,
    again: Callable[[], Any] | None,
) -> AsyncIterator[str]:
    """The events; when their engine dies before the first one, those of `again`."""
    sent = False
    try:
        async with aclosing(cast("Any", events)) as opened:
            async for event in opened:
                if not sent:
                    sent = True
                    report.keep()
                yield event
        return
    except EngineDeadError:
        life.watchdog.alarm()
        if sent or again is None:
            raise
    async with aclosing(await again()) as opened:
        async for event in opened:
            yield event
