"""One adapter version inside this gateway: its state, who is using it, and how it got here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from adapters.name import AdapterVersion
from adapters.store.holds import Hold
from bases.errors import HotswapError
from serve.engine.protocol import AdapterHandle
from serve.lifecycle.state import AdapterState, check_step
from serve.lifecycle.verdict import ProbeResult


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """What the registry knows of a version."""

    rank: int
    num_bytes: int
    source: str


@dataclass(slots=True, eq=False)
class ManagedVersion:
    """Mutable; belongs to one event loop."""

    version: AdapterVersion
    handle: AdapterHandle
    facts: VersionFacts
    on_step: Callable[[ManagedVersion, AdapterState], None]
    state: AdapterState = AdapterState.REGISTERED
    reason: str | None = None
    in_flight: int = 0
    since: float = field(default_factory=time.time)  # seconds since the epoch, of the last step
    last_used: float | None = None  # seconds since the epoch
    phase_seconds: dict[str, float] = field(default_factory=dict)
    probe: ProbeResult | None = None  # None: not probed in this process
    proven: bool = False  # read, verified and probed; versions beyond the memory are when they are first used
    proof: asyncio.Task[None] | None = None  # proves it, because somebody uses it
    returning: bool = False  # on its way back into an engine that was started again
    hold: Hold | None = None  # on its files, until it has failed or is unloaded
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._idle.set()

    def advance(self, to: AdapterState, reason: str | None = None) -> None:
        """Take one step of the adapter's life. Raises TransitionError for a step that does not exist."""
        check_step(str(self.version), self.state, to)
        came_from = self.state
        self.state, self.reason, self.since = to, reason, time.time()
        self.on_step(self, came_from)

    def fail(self, error: BaseException) -> None:
        """Take the step to `failed`, with the error's text as the reason."""
        reason = str(error) if isinstance(error, HotswapError) else "the load was cancelled"
        self.advance(AdapterState.FAILED, reason)

    @contextmanager
    def use(self) -> Iterator[None]:
        """Count a request for the length of the block."""
        self.in_flight += 1
        self.last_used = time.time()
        self._idle.clear()
        try:
            yield
        finally:
            self.in_flight -= 1
            if self.in_flight == 0:
                self._idle.set()

    async def wait_idle(self) -> None:
        """Return when no request uses this version."""
        await self._idle.wait()

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Record the seconds of one phase of loading."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.phase_seconds[phase] = round(time.perf_counter() - started, 4)
