"""Scripted engines that come one after the other, as a factory makes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

from serve.engine.protocol import AdapterHandle, Engine, EngineRequest, Sampling
from serve.engine.scripted import Script, ScriptedEngine
from serve.engine.supervised.backoff import RestartRules
from serve.engine.supervised.engine import SupervisedEngine
from serve.engine.supervised.supervisor import EngineState, SupervisionRules
from serve.engine.supervised.watchdog import WatchRules
from serve.errors import EngineError
from serve.observability.metrics import GatewayMetrics
from tests.patience import patient

SOON_SECONDS = patient(5.0)
RISK = AdapterHandle("risk@3f2a91c0", 1, Path("risk"))


def rules(*, stall: float = 30.0, hang: float = 60.0, restarts: int = 5) -> SupervisionRules:
    """Rules whose clocks tick a hundred times faster than the real ones."""
    return SupervisionRules(
        WatchRules(stall_seconds=stall, hang_seconds=hang, poll_seconds=0.005, beat_seconds=0.01),
        RestartRules(max_restarts=restarts, first_delay_seconds=0.01, max_delay_seconds=0.02),
    )


class Fleet:
    """A supervised engine, the engines that were made for it, and what became known of it."""

    def __init__(self, script: Script | None = None, given: SupervisionRules | None = None) -> None:
        self.script = script or Script()
        self.made: list[ScriptedEngine] = []
        self.engine = SupervisedEngine(self._make, given or rules())
        self.metrics = GatewayMetrics()
        self.readies = 0
        self.losses = 0
        self.versions = [RISK]  # what `restore` gives back

    def _make(self) -> ScriptedEngine:
        self.made.append(ScriptedEngine(self.script))
        return self.made[-1]

    async def start(self, restore: Callable[[Engine], Awaitable[None]] | None = None) -> None:
        await self.engine.start()
        for version in self.versions:
            await self.engine.load_adapter(version)
        self.engine.supervise(
            restore or self.restore, metrics=self.metrics, on_ready=self._note_ready, on_lost=self._note_lost
        )

    async def restore(self, engine: Engine) -> None:
        for version in self.versions:
            await engine.load_adapter(version)

    @property
    def last(self) -> ScriptedEngine:
        return self.made[-1]

    @property
    def state(self) -> EngineState:
        return self.engine.state

    def why_not(self) -> str | None:
        """Why it is not ready; None when it is."""
        try:
            self.engine.check_open()
        except EngineError as error:
            return str(error)
        return None

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"hotswap_{name}", labels) or 0.0

    def _note_ready(self) -> None:
        self.readies += 1

    def _note_lost(self) -> None:
        self.losses += 1


def request(number: int = 1, *, tokens: int = 3, **fields: Any) -> EngineRequest:
    return EngineRequest(f"req-{number}", [1, 2], Sampling(max_tokens=tokens), **fields)


async def words(outputs: AsyncGenerator[Any, None]) -> str:
    """The whole text of an answer."""
    return "".join([delta.text async for output in outputs for delta in output.deltas])


async def until(true: Callable[[], bool], seconds: float = SOON_SECONDS) -> None:
    """Wait for a condition, or fail."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.002)
