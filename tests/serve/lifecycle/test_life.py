"""Adapters' lives against a model: what each name answers with, what the engine holds, who is being answered."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from adapters.registry.registry import Registry
from serve.engine.protocol import EngineRequest, Sampling
from serve.engine.scripted import ScriptedEngine
from serve.errors import (
    AdapterMissingError,
    LifecycleError,
    ProbeFailedError,
    RequestAbortedError,
    UnknownModelError,
)
from serve.lifecycle.board import AdapterUnavailableError
from serve.lifecycle.state import AdapterState
from tests.serve.conftest import migrated_registry
from tests.serve.lifecycle.conftest import Bench, make_bench

T = TypeVar("T")

NAMES = st.sampled_from(["risk", "tone"])
SEEDS = st.integers(0, 2)
_SETTLING_TURNS = 12


async def settle() -> None:
    for _ in range(_SETTLING_TURNS):
        await asyncio.sleep(0)


@dataclass(eq=False)
class Answering:
    """A request that is being answered, and what was heard of it."""

    number: int
    name: str | None  # None: the base
    seed: int | None
    finish: asyncio.Event = field(default_factory=asyncio.Event)
    heard: list[str] = field(default_factory=list)
    task: asyncio.Task[None] | None = None


class Lives(RuleBasedStateMachine):
    """Two names, three contents, requests in between, restarts."""

    @initialize()
    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="hotswap-lives-"))
        (self.folder / "registry.db").write_bytes(migrated_registry())
        self.registry = Registry(f"sqlite:///{self.folder / 'registry.db'}")
        self.registry.open()
        self.live: dict[str, int] = {}
        self.unavailable: set[str] = set()  # names that should be live, and could not be brought up
        self.failed: Counter[str] = Counter()  # versions that failed, by name
        self.failed_seeds: set[tuple[str, int]] = set()
        self.digests: dict[tuple[str, int], str] = {}
        self.answering: list[Answering] = []
        self.count = 0
        self.bench = self.make_bench(ScriptedEngine())
        for seed in range(3):
            self.bench.source(f"seed-{seed}", seed=seed)

    def make_bench(self, engine: ScriptedEngine) -> Bench:
        async def make() -> Bench:
            return make_bench(self.folder, self.registry, engine=engine)

        return self.run_loop(make())

    def run_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    async def load(self, name: str, seed: int) -> None:
        outcome = await self.bench.manager.load(name, f"seed-{seed}", actor="test")
        self.digests[name, seed] = outcome.managed.version.digest
        before = self.live.get(name)
        was_live = before == seed and name not in self.unavailable
        assert outcome.created == (not was_live)
        replaced = None if before is None or before == seed else self.version(name, before)
        assert (str(outcome.replaced) if outcome.replaced else None) == replaced
        self.live[name] = seed
        self.unavailable.discard(name)
        self.failed_seeds.discard((name, seed))

    def version(self, name: str, seed: int) -> str:
        return f"{name}@{self.digests[name, seed][:8]}"

    def speaker(self, request: Answering) -> str:
        if request.name is None or request.seed is None:
            return "base"
        return self.version(request.name, request.seed)

    def in_use(self, name: str, seed: int) -> bool:
        return any((request.name, request.seed) == (name, seed) for request in self.answering)

    @rule(name=NAMES, seed=SEEDS)
    def load_or_replace(self, name: str, seed: int) -> None:
        self.run_loop(self.load(name, seed))

    @rule(name=NAMES, seeds=st.tuples(SEEDS, SEEDS))
    def load_two_at_once(self, name: str, seeds: tuple[int, int]) -> None:
        async def both() -> None:
            async with asyncio.TaskGroup() as group:
                for seed in seeds:
                    group.create_task(self.load(name, seed))

        self.run_loop(both())  # one after the other, in the order in which they came

    @rule(name=NAMES, seed=SEEDS, fault=st.sampled_from(["load", "probe"]))
    def load_badly(self, name: str, seed: int, fault: str) -> None:
        if self.live.get(name) == seed and name not in self.unavailable:
            return  # nothing is loaded, so nothing can fail
        if self.in_use(name, seed):
            return  # it is in the engine still: nothing is loaded either
        script = self.bench.engine.script
        kind: type[Exception] = LifecycleError
        if fault == "load":
            script.load_error = "out of slots"
        else:
            script.no_effect, kind = True, ProbeFailedError

        async def load() -> None:
            with pytest.raises(kind):
                await self.bench.manager.load(name, f"seed-{seed}", actor="test")

        self.run_loop(load())
        script.load_error, script.no_effect = None, False
        self.failed_seeds.add((name, seed))

    @rule(name=st.none() | NAMES)
    def start(self, name: str | None) -> None:
        self.count += 1
        request = Answering(self.count, name, self.live.get(name) if name is not None else None)
        request.task = self.run_loop(self.begin(request))
        if name is not None and (name not in self.live or name in self.unavailable):
            expected = AdapterUnavailableError if name in self.unavailable else UnknownModelError
            assert type(request.task.exception()) is expected
            return
        assert not request.task.done()
        assert request.heard == [f"{self.speaker(request)} "]
        self.answering.append(request)

    async def begin(self, request: Answering) -> asyncio.Task[None]:
        task = asyncio.create_task(self.answer(request))
        await settle()
        return task

    async def answer(self, request: Answering) -> None:
        bench = self.bench
        request_id = f"request-{request.number}"
        with (
            bench.running.track(request_id) as running,
            bench.board.lease(request.name, param="adapter") as lease,
        ):
            running.version = lease.engine_name
            asked = EngineRequest(request_id, [1], Sampling(max_tokens=3), lease.handle)
            async for output in bench.engine.generate(asked):
                request.heard += [delta.text for delta in output.deltas]
                await request.finish.wait()

    @precondition(lambda self: self.answering)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self.end(data.draw(st.sampled_from(self.answering)))

    def end(self, request: Answering) -> None:
        self.answering.remove(request)

        async def wait() -> None:
            request.finish.set()
            assert request.task is not None
            await request.task
            await settle()

        self.run_loop(wait())
        assert request.heard == [f"{self.speaker(request)} "] * 3

    def is_known(self, name: str) -> bool:
        seen = {(request.name, request.seed) for request in self.answering} | self.failed_seeds
        return name in self.live or any(known == name for known, _ in seen)

    @rule(name=NAMES)
    def unload_at_once(self, name: str) -> None:
        async def unload() -> None:
            if not self.is_known(name):
                with pytest.raises(AdapterMissingError):
                    await self.bench.manager.unload(name, actor="test")
                return
            await self.bench.manager.unload(name, actor="test", drain_seconds=0)

        self.run_loop(unload())
        aborted = [request for request in self.answering if request.name == name]
        for request in aborted:
            self.answering.remove(request)
            assert request.task is not None
            assert isinstance(request.task.exception(), RequestAbortedError)
            assert request.heard == [f"{self.speaker(request)} "]
        self.note_unloaded(name)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def unload_patiently(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.live)))
        users = [request for request in self.answering if request.name == name]

        async def begin() -> asyncio.Task[Any]:
            task = asyncio.create_task(self.bench.manager.unload(name, actor="test", drain_seconds=60))
            while self.bench.board.behind(name) is not None:
                await asyncio.sleep(0)
            await settle()
            return task

        unloading = self.run_loop(begin())
        with pytest.raises(UnknownModelError), self.bench.board.lease(name, param="adapter"):
            pass
        for request in users:
            assert not unloading.done()
            self.end(request)
        self.run_loop(asyncio.wait_for(unloading, 30))
        self.note_unloaded(name)

    def note_unloaded(self, name: str) -> None:
        self.live.pop(name, None)
        self.unavailable.discard(name)
        self.failed_seeds = {(known, seed) for known, seed in self.failed_seeds if known != name}

    @rule(fault=st.sampled_from(["", "", "load", "probe"]))
    def restart(self, fault: str) -> None:
        for request in list(self.answering):
            self.end(request)
        self.run_loop(self.bench.close())
        engine = ScriptedEngine()
        engine.script.load_error = "out of slots" if fault == "load" else None
        engine.script.no_effect = fault == "probe"
        self.bench = self.make_bench(engine)
        self.run_loop(self.bench.manager.converge())
        self.unavailable = set(self.live) if fault else set()
        self.failed_seeds = {(name, self.live[name]) for name in self.unavailable}
        engine.script.load_error, engine.script.no_effect = None, False

    @invariant()
    def everything_is_as_modelled(self) -> None:
        if not hasattr(self, "bench"):
            return
        self.run_loop(settle())
        bench = self.bench
        expected = {name: self.version(name, seed) for name, seed in self.live.items()}
        assert {name: str(m.version) for name, m in bench.board.aliases().items()} == expected
        registered = {record.version.name: str(record.version) for record in self.registry.list_aliases()}
        assert registered == expected
        uses = Counter(self.speaker(request) for request in self.answering if request.name is not None)
        ready = {expected[name] for name in expected if name not in self.unavailable}
        held = Counter(handle.name for handle in bench.engine.adapters.values())
        assert held == Counter(dict.fromkeys(ready | set(uses), 1))
        for managed in bench.board.versions():
            version = str(managed.version)
            assert managed.in_flight == uses[version]
            if version in ready:
                assert managed.state is AdapterState.LIVE
            elif uses[version]:
                assert managed.state is AdapterState.DRAINING
            else:
                assert managed.state is AdapterState.FAILED
                assert managed.reason
        known = {str(managed.version) for managed in bench.board.versions()}
        assert ready | set(uses) <= known
        assert len(bench.running) == len(bench.engine.active) == len(self.answering)
        for state in AdapterState:
            counted = sum(managed.state is state for managed in bench.board.versions())
            labels = {"state": str(state)}
            assert (bench.metrics.registry.get_sample_value("hotswap_adapters", labels) or 0) == counted

    async def cancel_what_is_left(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def teardown(self) -> None:
        if not hasattr(self, "bench"):
            return
        try:
            for request in list(self.answering):
                self.end(request)
            self.run_loop(self.bench.close())
        finally:
            self.run_loop(self.cancel_what_is_left())
            self.run_loop(self.loop.shutdown_default_executor())
            self.loop.close()
            self.registry.close()
            for version in (self.folder / "store").iterdir():
                version.chmod(0o700)
            shutil.rmtree(self.folder)


TestLives = Lives.TestCase
TestLives.settings = settings(
    max_examples=15,  # test_state_machine.py has more verbs and fewer races
    stateful_step_count=20,
    deadline=None,
    # Twenty steps can be read as they are; making them fewer would take minutes.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
