"""Adapter managers on the scripted engine, with a registry and a store that outlive them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from adapters.registry.registry import Registry
from adapters.store.store import AdapterStore
from adapters.target import NOT_ROUNDED, RoundedBase
from serve.engine.scripted import SCRIPTED_TARGET, ScriptedEngine
from serve.lifecycle.board import AdapterBoard
from serve.lifecycle.manager import AdapterManager
from serve.lifecycle.rules import AdapterRules
from serve.lifecycle.state import AdapterState
from serve.observability.metrics import GatewayMetrics
from serve.running import RunningRequests
from tests.serve.conftest import make_source, migrated_registry


@dataclass
class Bench:
    """One manager and everything around it."""

    root: Path
    engine: ScriptedEngine
    board: AdapterBoard
    registry: Registry
    store: AdapterStore
    running: RunningRequests
    metrics: GatewayMetrics
    manager: AdapterManager

    def source(self, name: str, *, seed: int = 0, **options: object) -> str:
        """Write an adapter below the root and return the name to load it by."""
        return make_source(self.root, name, seed=seed, **options)

    async def load(self, name: str, seed: int = 0) -> str:
        """Load the adapter made of `seed` as `name`; returns the version's name."""
        outcome = await self.manager.load(name, self.source(f"seed-{seed}", seed=seed), actor="test")
        return str(outcome.managed.version)

    def speaker(self, name: str | None = "risk", **caller: object) -> str:
        """Who answers to a name."""
        with self.board.lease(name, param="adapter", **caller) as lease:  # type: ignore[arg-type]
            return lease.engine_name

    @property
    def held(self) -> list[str]:
        """What the engine holds."""
        return sorted(handle.name for handle in self.engine.adapters.values())

    async def drained(self) -> None:
        """Return when nothing is on its way out."""
        while any(managed.state is AdapterState.DRAINING for managed in self.board.versions()):
            await asyncio.sleep(0)

    def lose(self, digest: str) -> None:
        """Take a version's files away as no gateway would."""
        folder = self.store.path(digest)
        folder.chmod(0o700)
        shutil.rmtree(folder)

    async def close(self) -> None:
        """End the manager as a shutdown does."""
        for managed in self.board.versions():
            assert managed.in_flight == 0
        await self.manager.close()
        self.store.close()


def make_bench(
    folder: Path,
    registry: Registry,
    *,
    engine: ScriptedEngine | None = None,
    probe: bool = True,
    drain_seconds: float = 30.0,
    max_lora_rank: int = 64,
    fingerprint: str = SCRIPTED_TARGET.fingerprint,
    rounded: RoundedBase = NOT_ROUNDED,
    max_resident: int = 64,
    keep_versions: int = 5,
    replica: str = "",
) -> Bench:
    """A manager on `registry` and on the store in `folder`; a replica has a store and a root of its own."""
    engine = engine or ScriptedEngine()
    board, running, metrics = AdapterBoard("scripted"), RunningRequests(), GatewayMetrics()
    store = AdapterStore(folder / replica / "store")
    root = folder / replica / "adapters"
    root.mkdir(parents=True, exist_ok=True)
    manager = AdapterManager(
        engine=engine,
        board=board,
        registry=registry,
        store=store,
        running=running,
        metrics=metrics,
        rules=AdapterRules(
            root=root,
            target=replace(SCRIPTED_TARGET, fingerprint=fingerprint, rounded=rounded),
            max_lora_rank=max_lora_rank,
            max_bytes=2**20,
            probe=probe,
            drain_seconds=drain_seconds,
            max_resident=max_resident,
            keep_versions=keep_versions,
        ),
    )
    return Bench(root, engine, board, registry, store, running, metrics, manager)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Callable[..., Bench]]:
    """`bench(**rules)`: managers on one registry and store; a second one is the first after a restart."""
    async with AsyncExitStack() as stack:
        (tmp_path / "registry.db").write_bytes(migrated_registry())
        registry = Registry(f"sqlite:///{tmp_path / 'registry.db'}")
        await asyncio.to_thread(registry.open)
        stack.callback(registry.close)

        def make(**options: object) -> Bench:
            made = make_bench(tmp_path, registry, **options)  # type: ignore[arg-type]
            stack.push_async_callback(made.close)
            return made

        yield make
