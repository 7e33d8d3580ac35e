"""What happens in the gateway, written into the registry in its order, and read on by whoever follows it.

The registry's table of events is the one source: a stream of events is a reader of that table which is woken when
something was written here and looks by itself now and then for what other gateways on the same registry wrote. So
nothing is kept in memory for a reader, however slow it is, and one that comes back goes on where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from adapters.registry.records import Event, EventRecord
from adapters.registry.registry import Registry
from bases.errors import HotswapError
from serve.errors import BusyError
from serve.registry_threads import ask_registry

logger = logging.getLogger("hotswap.events")

STATE_ACTION = "state"  # a step in the life of an adapter version; the outcome is the state reached
GATEWAY_ACTOR = "gateway"  # who acts when nobody asked: a canary's guard, the supervisor of the engine
MAX_WAITING = 10_000  # events that are not written yet, while the registry does not answer
MAX_READERS = 32
BATCH = 500
KEEP_STEPS_AMONG = (
    100_000  # the newest events: steps of versions that are older go, everything else stays for ever
)
_PRUNE_EVERY = 1000  # events, of all gateways on the registry
POLL_SECONDS = 2.0
_RETRY_SECONDS = 1.0
_RETRY_AFTER_SECONDS = 5


@dataclass(slots=True)
class NotedInCall:
    """Whether a call, or what it began, has put a line into the log."""

    noted: bool = False


# Of the call that this code runs for; a task that it begins inherits it.
_call: ContextVar[NotedInCall | None] = ContextVar("call", default=None)


@contextlib.contextmanager
def call_noted() -> Iterator[NotedInCall]:
    """Tells, while and after the block runs, whether anything in it was written down besides steps of versions."""
    call = NotedInCall()
    token = _call.set(call)
    try:
        yield call
    finally:
        _call.reset(token)


def mark_noted() -> None:
    """Say that what this code's call does was written down by other means: with the change, in one transaction."""
    call = _call.get()
    if call is not None:
        call.noted = True


class EventLog:
    """Belongs to one event loop; the registry works in threads."""

    def __init__(
        self, registry: Registry, *, poll_seconds: float = POLL_SECONDS, retry_seconds: float = _RETRY_SECONDS
    ) -> None:
        """`poll_seconds`: how often a reader looks for what other gateways wrote; `retry_seconds`: how long to
        wait for a registry that does not answer."""
        self._registry = registry
        self._poll_seconds = poll_seconds
        self._retry_seconds = retry_seconds
        self._waiting: deque[Event] = deque()
        self._lost = 0
        self._writer: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._listeners: list[Callable[[Event], None]] = []
        self._news = asyncio.Event()  # set and replaced whenever something was written
        self._ended = False  # readers come to their end
        self._closing = asyncio.Event()  # the registry is asked for the last time
        self._readers = 0

    def note(self, event: Event) -> None:
        """Have an event written down, after those before it. Never raises: what cannot be written is logged."""
        if event.action != STATE_ACTION:
            mark_noted()
        for listener in self._listeners:
            listener(event)
        if len(self._waiting) >= MAX_WAITING:
            self._lost += 1
            logger.error("the event %s %s was not written down: too many wait", event.action, event.name)
            return
        self._waiting.append(event)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write(), name="write events")

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` with each event of this gateway as it is noted."""
        self._listeners.append(listener)

    async def flush(self) -> None:
        """Return when everything noted so far is written, or was given up."""
        if self._writer is not None:
            await asyncio.wait({self._writer})

    def end_streams(self) -> None:
        """Let every reader end when it has read what is written now."""
        self._ended = True
        self._wake()

    def end_soon(self) -> None:
        """Let every reader end when it has read what is noted by now; does not wait for it."""
        self._ending = asyncio.get_running_loop().create_task(
            self._end_when_written(), name="end event streams"
        )

    async def _end_when_written(self) -> None:
        await self.flush()
        self.end_streams()

    async def close(self) -> None:
        """Write what waits, asking the registry once more at most, and end the readers."""
        self._closing.set()
        await self._end_when_written()
        if self._ending is not None:
            await asyncio.wait({self._ending})

    async def last_id(self) -> int:
        """The id of the newest event that is written. Raises RegistryError."""
        return await ask_registry(self._registry.last_event_id)

    async def page(
        self,
        *,
        name: str | None = None,
        actor: str | None = None,
        action: str | None = None,
        states: bool = False,
        before_id: int | None = None,
        limit: int = 100,
    ) -> list[EventRecord]:
        """Written events, the newest first; with `states` also the steps of versions. Raises RegistryError."""
        return await ask_registry(
            self._registry.list_events,
            name=name,
            actor=actor,
            action=action,
            without_actions=() if states or action is not None else (STATE_ACTION,),
            before_id=before_id,
            limit=limit,
        )

    async def follow(self, after_id: int) -> AsyncGenerator[list[EventRecord], None]:
        """Events behind `after_id` in their order, in batches, for ever; an empty batch says that there is no news.

        Ends with `end_streams`. Raises BusyError when too many read already, and RegistryError.
        """
        if self._readers >= MAX_READERS:
            raise BusyError(
                f"{self._readers} readers follow the events already; end one, or page through GET /admin/audit",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        self._readers += 1
        try:
            while True:
                news, ended = self._news, self._ended
                records = await ask_registry(self._registry.events_after, after_id, limit=BATCH)
                if records:
                    after_id = records[-1].id
                    yield records
                    continue
                if ended:
                    return
                yield []
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_seconds):
                        await news.wait()
        finally:
            self._readers -= 1

    async def _write(self) -> None:
        while self._waiting:
            batch = list(itertools.islice(self._waiting, BATCH))
            lost = self._lost  # more may be lost while these are being written
            told = [Event(GATEWAY_ACTOR, "audit", "events_lost", detail={"count": lost})] if lost else []
            try:
                written = await ask_registry(self._registry.append_events, [*batch, *told])
            except HotswapError as error:
                logger.error("%d events were not written down yet: %s", len(batch), error)
                if self._closing.is_set():
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._retry_seconds):
                        await self._closing.wait()
                continue
            self._lost -= lost
            for _ in batch:
                self._waiting.popleft()
            self._wake()
            if written[-1].id // _PRUNE_EVERY > (written[0].id - 1) // _PRUNE_EVERY:
                await self._prune()

    async def _prune(self) -> None:
        try:
            await ask_registry(self._registry.prune_events, action=STATE_ACTION, keep=KEEP_STEPS_AMONG)
        except HotswapError as error:
            logger.warning("old steps of versions were not forgotten: %s", error)

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
