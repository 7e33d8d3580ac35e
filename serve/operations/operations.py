"""All operations of one gateway: started once, run to their end, remembered for a while.

An operation is a task of its own, so that a client that leaves takes nothing with it. A request that carries an
idempotency key and is sent again gets the operation of the first one, running or ended, here or after a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import orjson

from adapters.registry.operations import OperationTable
from adapters.registry.records import Event
from bases.errors import HotswapError
from serve.errors import (
    DrainingError,
    IdempotencyConflictError,
    OperationMissingError,
    RequestAbortedError,
)
from serve.http.errors import InternalError, body_of, status_of
from serve.lifecycle.state import AdapterState
from serve.observability.events import STATE_ACTION, EventLog
from serve.operations.operation import Answer, Operation, OperationState, Order
from serve.registry_threads import ask_registry

logger = logging.getLogger("hotswap.operations")

Work = Callable[[Operation], Awaitable[Answer]]

KEEP_SECONDS = 24 * 3600.0  # how long an ended operation, and its key, are known
KEEP_OPERATIONS = 10_000
REMEMBERED = 32  # ended ones that are kept in memory; the registry has them all, with their answers
TOUCH_SECONDS = 60.0
UNTOUCHED_SECONDS = 5 * TOUCH_SECONDS  # a gateway that says nothing for so long is gone
_PRUNE_EVERY = 100  # operations
_RETRY_AFTER_SECONDS = 5

# What begins when a version reaches a state.
_PHASES = {
    AdapterState.REGISTERED: "store",
    AdapterState.LOADING: "load",
    AdapterState.PROBING: "probe",
    AdapterState.LIVE: "switch",
    AdapterState.DRAINING: "drain",
}


class Operations:
    """Belongs to one event loop; the registry works in threads."""

    def __init__(self, table: OperationTable, events: EventLog) -> None:
        self._table = table
        self._running: dict[str, Operation] = {}
        self._ended: dict[str, Operation] = {}  # the newest last
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._toucher: asyncio.Task[None] | None = None
        self._busy_count = 0
        self._started = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._closing = False
        events.listen(self._heard)

    async def recover(self) -> None:
        """At the start: end what an earlier process of this gateway left running. Raises RegistryError."""
        await self._interrupt(own=True)
        await self._prune()

    async def start(self, order: Order, work: Work) -> Operation:
        """Begin `work` under that order, or return the operation that the same request began before.

        What `work` raises becomes the operation's answer. Raises IdempotencyConflictError, DrainingError,
        RegistryError.
        """
        if self._closing:
            raise DrainingError(
                "the server is shutting down; try again on its successor",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        operation = Operation.begin(order)
        with self._busy():
            # Known before its row is, so that the same request sent twice at once finds it.
            self._running[operation.id] = operation
            try:
                earlier = await self._claim(operation)
            except BaseException:
                del self._running[operation.id]
                raise
            if earlier is not None:
                del self._running[operation.id]
                return earlier
            task = asyncio.create_task(self._run(operation, work), name=f"operation {operation.id}")
            self._tasks[operation.id] = task
            self._enter_busy()  # from here, as the task has not run yet
            task.add_done_callback(lambda _: self._leave_busy())
            task.add_done_callback(lambda _: self._tasks.pop(operation.id))
        if self._toucher is None or self._toucher.done():
            self._toucher = asyncio.create_task(self._touch(), name="touch operations")
        return operation

    async def get(self, operation_id: str) -> Operation:
        """One operation. Raises OperationMissingError, RegistryError."""
        found = self._running.get(operation_id) or self._ended.get(operation_id)
        if found is None:
            record = await ask_registry(self._table.get, operation_id)
            if record is None:
                raise OperationMissingError(
                    f"no operation {operation_id!a} is known; they are forgotten a day after their end"
                )
            found = Operation.restore(record)
        return found

    async def list(self, *, name: str | None = None, limit: int = 100) -> list[Operation]:
        """The newest first, of this gateway and others on its registry. Raises RegistryError."""
        records = await ask_registry(self._table.list, name=name, limit=limit)
        return [
            self._running.get(record.id) or self._ended.get(record.id) or Operation.restore(record)
            for record in records
        ]

    def refuse(self) -> None:
        """Start no more operations; running ones go on."""
        self._closing = True

    async def wait_quiet(self) -> None:
        """Return when no operation runs."""
        await self._quiet.wait()

    async def close(self) -> None:
        """Start no more operations and wait for the running ones; whoever calls this sees that they end."""
        self.refuse()
        if self._toucher is not None:
            self._toucher.cancel()
            await asyncio.wait({self._toucher})
        await asyncio.gather(*self._tasks.values())

    async def abandon(self) -> None:
        """Cancel what still runs, and let it say so."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _claim(self, operation: Operation) -> Operation | None:
        """Write the operation down; return the earlier one that has its key."""
        record = operation.record()
        written = await ask_registry(self._table.begin, record)
        if (
            written.id != record.id
            and written.state == OperationState.RUNNING
            and written.id not in self._running
        ):
            # Somebody else's, or one that died with its gateway.
            await self._interrupt(own=False)
            written = await ask_registry(self._table.begin, record)
        ending = self._tasks.get(written.id)
        if ending is not None and _frees_its_key(self._ended.get(written.id)):
            await asyncio.wait({ending})
            written = await ask_registry(self._table.begin, record)
        if written.id == record.id:
            return None
        if written.fingerprint != operation.order.fingerprint:
            raise IdempotencyConflictError(
                f"the idempotency key {operation.order.key!a} was used for another request; take a new key for "
                "a new request, and send the same one again only with the same key",
                param="Idempotency-Key",
            )
        return self._running.get(written.id) or self._ended.get(written.id) or Operation.restore(written)

    async def _run(self, operation: Operation, work: Work) -> None:
        try:
            answer, error = await self._answer(operation, work)
            operation.end(answer, error)
        finally:
            self._running.pop(operation.id, None)
        self._ended[operation.id] = operation
        while len(self._ended) > REMEMBERED:
            del self._ended[next(iter(self._ended))]
        await self._write_end(operation)
        self._started += 1
        if self._started % _PRUNE_EVERY == 0:
            await self._prune()

    async def _answer(self, operation: Operation, work: Work) -> tuple[Answer, HotswapError | None]:
        order = operation.order
        cause: HotswapError
        try:
            return await work(operation), None
        except HotswapError as error:
            cause = error
        except asyncio.CancelledError:
            cause = RequestAbortedError(
                "the server ended before this operation was complete; ask for it again"
            )
        except Exception:  # the background boundary: the client must learn that it failed
            logger.exception("operation %s failed", operation.id)
            cause = InternalError(
                "the server failed on this operation; its log holds the reason under its id"
            )
        return Answer(status_of(cause), body_of(cause, order.request_id)), cause

    async def _write_end(self, operation: Operation) -> None:
        try:
            await ask_registry(self._table.end, operation.record(), keep_key=not _frees_its_key(operation))
        except HotswapError as error:
            logger.error("the end of operation %s was not written down: %s", operation.id, error)

    async def _interrupt(self, *, own: bool) -> None:
        cause = RequestAbortedError(
            "the server ended before this operation was complete; look at the adapter and ask for it again"
        )
        count = await ask_registry(
            self._table.interrupt,
            body_of(cause, ""),
            status=status_of(cause),
            own=own,
            untouched_seconds=UNTOUCHED_SECONDS,
        )
        if count:
            logger.warning("%d operations were cut off with the process that ran them", count)

    async def _touch(self) -> None:
        while self._running:
            await asyncio.sleep(TOUCH_SECONDS)
            try:
                await ask_registry(self._table.touch, list(self._running))
            except HotswapError as error:
                logger.warning("running operations were not touched: %s", error)

    async def _prune(self) -> None:
        try:
            await ask_registry(self._table.prune, older_than_seconds=KEEP_SECONDS, keep=KEEP_OPERATIONS)
        except HotswapError as error:
            logger.warning("old operations were not forgotten: %s", error)

    @contextlib.contextmanager
    def _busy(self) -> Iterator[None]:
        self._enter_busy()
        try:
            yield
        finally:
            self._leave_busy()

    def _enter_busy(self) -> None:
        self._busy_count += 1
        self._quiet.clear()

    def _leave_busy(self) -> None:
        self._busy_count -= 1
        if self._busy_count == 0:
            self._quiet.set()

    def _heard(self, event: Event) -> None:
        """Steps of a version are phases of the operation on its name."""
        if event.action != STATE_ACTION or event.outcome not in _PHASES:
            return
        for operation in self._running.values():
            if operation.order.name == event.name:
                operation.enter(_PHASES[AdapterState(event.outcome)])


def fingerprint(asked: Mapping[str, Any]) -> str:
    """A digest of everything that a request asks for; values are what JSON holds."""
    return hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _frees_its_key(operation: Operation | None) -> bool:
    """Whether it ended with "try again", which must not be the answer to the attempt that follows it."""
    return operation is not None and operation.answer is not None and operation.answer.status == 503
