"""How the scripted engine dies and stands still: what SIGKILL and SIGSTOP do to a process, without one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from serve.errors import EngineDeadError


class ScriptedLife:
    """Whoever waits inside an engine waits here, so that its death ends the waiting at once."""

    def __init__(self) -> None:
        self.dead = False
        self._moving = asyncio.Event()  # cleared: it hangs
        self._moving.set()
        self._waiting: set[asyncio.Future[None]] = set()  # all that wait inside
        self._outlived: set[asyncio.Future[None]] = set()  # those of them at its last death

    @property
    def num_waiting(self) -> int:
        """How many wait inside."""
        return len(self._waiting)

    def begin(self) -> None:
        """It lives, again or for the first time, and moves."""
        self.dead = False
        self._moving.set()

    def die(self) -> None:
        """Whatever waits inside ends with EngineDeadError."""
        self.dead = True
        for waiting in self._waiting:
            _settle(waiting)
        self._outlived = self._waiting.copy()

    def hang(self) -> None:
        """Nothing goes on until `resume`."""
        self._moving.clear()

    def resume(self) -> None:
        """What hung goes on."""
        self._moving.set()

    def check_alive(self) -> None:
        """Raises EngineDeadError."""
        if self.dead:
            raise EngineDeadError("the scripted engine is dead")

    async def go_on(self, seconds: float = 0.0, *, gate: asyncio.Event | None = None) -> None:
        """Wait for so long, until it hangs no more, and for the gate. Raises EngineDeadError."""
        if seconds:
            await self._sleep(seconds)
        else:
            await asyncio.sleep(0)
        await self.check_moving()
        if gate is not None:
            await self.pass_gate(gate)

    async def pass_gate(self, gate: asyncio.Event) -> None:
        """Wait until `gate` is open and it hangs no more. Raises EngineDeadError."""
        if not gate.is_set():
            await self._unless_dead(gate.wait())
            await self.check_moving()

    async def check_moving(self) -> None:
        """Wait while it hangs. Raises EngineDeadError."""
        if not self._moving.is_set() and not self.dead:
            await self._unless_dead(self._moving.wait())
        self.check_alive()

    async def _sleep(self, seconds: float) -> None:
        """As asyncio.sleep, and over when the engine dies."""
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _settle, over)
        self._waiting.add(over)
        try:
            await over
        finally:
            timer.cancel()
            self._waiting.discard(over)
        self._check_outlived(over)

    async def _unless_dead(self, work: Coroutine[Any, Any, Any]) -> None:
        """Wait for `work`, or until the engine dies."""
        death: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(work)
        self._waiting.add(death)
        try:
            await asyncio.wait({task, death}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiting.discard(death)
            task.cancel()
        self._check_outlived(death)

    def _check_outlived(self, waited: asyncio.Future[None]) -> None:
        """Raise EngineDeadError for whoever waited while it died, though it may have been started since."""
        if waited in self._outlived:
            self._outlived.discard(waited)
            raise EngineDeadError("the scripted engine is dead")


def _settle(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
