"""Every verb on versions, on two gateways of one registry, against the rules in tests/contamination/standing.py.

test_life.py has the races of loading and unloading one gateway; here the verbs come one after another and in any
order, requests begin and end in between, engines are started again and gateways fall behind each other.

HOTSWAP_TEST_STATEFUL_EXAMPLES=2000 looks for longer.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from adapters.artefact import WEIGHTS_NAME
from adapters.errors import AdapterCheckError, AdapterConflictError
from adapters.registry.registry import Registry
from serve.engine.scripted import ScriptedEngine
from serve.errors import AdapterMissingError, LifecycleError, RequestAbortedError, UnknownModelError
from serve.lifecycle.board import Lease
from serve.lifecycle.desired import read_plan
from serve.lifecycle.listing import Listing
from serve.lifecycle.state import AdapterState
from serve.lifecycle.traffic import TrafficPlan
from serve.observability.events import STATE_ACTION
from serve.schemas.admin import adapter_fields
from tests.contamination.cast import digest_of
from tests.contamination.standing import NOTHING, Standing
from tests.serve.conftest import migrated_registry
from tests.serve.lifecycle.conftest import Bench, make_bench

T = TypeVar("T")

NAMES = ("risk", "tone")
NUM_CONTENTS = 3
DAMAGED = "damaged"
NAME, CONTENT, GATEWAY = st.sampled_from(NAMES), st.integers(0, NUM_CONTENTS - 1), st.integers(0, 1)
REFUSED = (AdapterMissingError, AdapterConflictError)
_SETTLING_TURNS = 12


@dataclass(eq=False)
class Request:
    """One that is being answered on a gateway."""

    name: str
    version: str
    finish: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[str] | None = None  # its result is who the lease says answered, at the end


class Gateway:
    """One gateway, and how much of the registry's words it has followed."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.listing = Listing(bench.board, adapter_fields)
        self.behind: set[str] = set()  # names that the other gateway has changed meanwhile
        self.requests: list[Request] = []
        self.failed: set[str] = set()  # names of which a load failed here


class Versions(RuleBasedStateMachine):
    """Two names, three contents that both names may have, two gateways."""

    @initialize()
    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="hotswap-versions-"))
        (self.folder / "registry.db").write_bytes(migrated_registry())
        self.registry = Registry(f"sqlite:///{self.folder / 'registry.db'}")
        self.registry.open()
        self.standings = {name: Standing() for name in NAMES}
        self.verbs: Counter[tuple[str, bool]] = Counter()  # what the audit has to hold: (verb, succeeded)
        self.verbs_went_well = True
        self.gateways = [Gateway(self.run(self.make())) for _ in range(2)]
        bench = self.gateways[0].bench
        self.digests = [
            digest_of(bench.root / bench.source(f"content-{seed}", seed=seed)) for seed in range(NUM_CONTENTS)
        ]
        damaged = bench.root / bench.source(DAMAGED, seed=99) / WEIGHTS_NAME
        damaged.write_bytes(damaged.read_bytes()[:-16])

    async def make(self) -> Bench:
        bench = make_bench(self.folder, self.registry, engine=ScriptedEngine())
        await bench.manager.converge()
        return bench

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def version(self, name: str, content: int) -> str:
        return f"{name}@{self.digests[content][:8]}"

    def verb(
        self,
        action: str,
        at: int,
        name: str,
        after: Standing | None,
        work: Callable[[], Awaitable[object]],
        refused: tuple[type[Exception], ...] = REFUSED,
    ) -> None:
        """Run a verb on one gateway: it makes `after` of the name, or (None) is refused and changes nothing."""

        self.verbs_went_well = False

        async def attempt() -> None:
            if after is None:
                with pytest.raises(refused):
                    await work()
            else:
                await work()

        self.verbs[action, after is not None] += 1
        self.run(attempt())
        self.verbs_went_well = True
        if after is not None and after != self.standings[name]:
            self.standings[name] = after
            self.gateways[1 - at].behind.add(name)

    @rule(at=GATEWAY, name=NAME, content=CONTENT, promote=st.booleans())
    def load(self, at: int, name: str, content: int, promote: bool) -> None:
        manager = self.gateways[at].bench.manager
        after = self.standings[name].load(self.version(name, content), promote=promote)
        source = f"content-{content}"
        self.verb("load", at, name, after, lambda: manager.load(name, source, actor="test", promote=promote))

    @rule(
        at=GATEWAY, name=NAME, content=CONTENT, fault=st.sampled_from(["damaged", "engine", "probe", "other"])
    )
    def load_badly(self, at: int, name: str, content: int, fault: str) -> None:
        gateway, standing, version = self.gateways[at], self.standings[name], self.version(name, content)
        manager, script = gateway.bench.manager, gateway.bench.engine.script
        source, expected = f"content-{content}", None
        kind: type[Exception] = AdapterCheckError
        if fault == "damaged":
            source = DAMAGED
        elif fault == "other":
            kind, expected = AdapterConflictError, "none" if standing.live is not None else "0" * 8
        else:
            used = any(request.version == version for request in gateway.requests)
            if version in standing.wanted or used or name in gateway.behind:
                return  # it may be in the engine already: nothing is loaded, so nothing fails
            kind = LifecycleError
            script.load_error, script.no_effect = (
                "out of slots" if fault == "engine" else None,
                fault == "probe",
            )
            gateway.failed.add(name)

        def work() -> Awaitable[object]:
            return manager.load(name, source, actor="test", expected_live=expected)

        self.verb("load", at, name, None, work, (kind,))
        script.load_error, script.no_effect = None, False

    @rule(at=GATEWAY, source=st.sampled_from([DAMAGED, "content-0"]))
    def validate(self, at: int, source: str) -> None:
        report = self.run(self.gateways[at].bench.manager.validate(source, actor="test"))
        assert report.ok == (source != DAMAGED)
        self.verbs["validate", True] += 1

    @rule(at=GATEWAY, name=NAME, content=CONTENT)
    def promote(self, at: int, name: str, content: int) -> None:
        manager, version = self.gateways[at].bench.manager, self.version(name, content)
        after = self.standings[name].promote(version)
        self.verb("promote", at, name, after, lambda: manager.promote(name, version, actor="test"))

    @rule(at=GATEWAY, name=NAME)
    def rollback(self, at: int, name: str) -> None:
        manager = self.gateways[at].bench.manager
        after = self.standings[name].rollback()
        self.verb("rollback", at, name, after, lambda: manager.rollback(name, actor="test"))

    @rule(
        at=GATEWAY,
        name=NAME,
        canaries=st.dictionaries(CONTENT, st.sampled_from([0.1, 0.5]), max_size=2),
        shadow=st.none() | CONTENT,
    )
    def share(self, at: int, name: str, canaries: dict[int, float], shadow: int | None) -> None:
        manager = self.gateways[at].bench.manager
        shadows = {shadow} - {None, *canaries}
        plan = TrafficPlan(
            shares={self.digests[content]: share for content, share in canaries.items()},
            shadow={self.digests[content]: 1.0 for content in shadows if content is not None},
        )
        after = self.standings[name].share(
            {self.version(name, content): share for content, share in canaries.items()},
            frozenset(self.version(name, content) for content in shadows if content is not None),
        )
        if not self.standings[name].known:
            after = None
        self.verb("set_traffic", at, name, after, lambda: manager.set_traffic(name, plan, actor="test"))

    @rule(at=GATEWAY, name=NAME)
    def clear(self, at: int, name: str) -> None:
        manager = self.gateways[at].bench.manager
        after = self.standings[name].clear()
        self.verb("clear_traffic", at, name, after, lambda: manager.clear_traffic(name, actor="test"))

    @rule(at=GATEWAY, name=NAME, content=CONTENT)
    def pin(self, at: int, name: str, content: int) -> None:
        manager, version = self.gateways[at].bench.manager, self.version(name, content)
        after = self.standings[name].pin(version)
        self.verb("pin", at, name, after, lambda: manager.pin(name, version, actor="test"))

    @rule(at=GATEWAY, name=NAME, content=CONTENT)
    def unpin(self, at: int, name: str, content: int) -> None:
        manager, version = self.gateways[at].bench.manager, self.version(name, content)
        after = self.standings[name].unpin(version)
        self.verb("unpin", at, name, after, lambda: manager.unpin(name, version, actor="test"))

    @rule(at=GATEWAY, name=NAME, content=CONTENT)
    def prefetch(self, at: int, name: str, content: int) -> None:
        manager, version = self.gateways[at].bench.manager, self.version(name, content)
        after = self.standings[name].prefetch(version)
        self.verb("prefetch", at, name, after, lambda: manager.prefetch(name, version, actor="test"))

    @rule(at=GATEWAY, name=NAME, content=CONTENT)
    def unload_version(self, at: int, name: str, content: int) -> None:
        """At once: whoever is being answered by it is ended, with its cause."""
        gateway, version = self.gateways[at], self.version(name, content)
        after = self.standings[name].unload_version(version)

        def work() -> Awaitable[object]:
            return gateway.bench.manager.unload_version(name, version, actor="test", drain_seconds=0)

        self.verb("unload_version", at, name, after, work)
        if after is not None:
            self.ended(gateway, lambda request: request.version == version)

    @rule(at=GATEWAY, name=NAME)
    def unload(self, at: int, name: str) -> None:
        """At once: whoever is being answered by any version of the name is ended, with its cause."""
        gateway, after = self.gateways[at], self.standings[name].unload()
        if after is None and gateway.bench.board.versions(name):
            after = Standing()  # what is left of failed loads, and what the other gateway has unloaded before

        def work() -> Awaitable[object]:
            return gateway.bench.manager.unload(name, actor="test", drain_seconds=0)

        self.verb("unload", at, name, after, work)
        if after is not None:
            self.ended(gateway, lambda request: request.name == name)

    def ended(self, gateway: Gateway, which: Callable[[Request], bool]) -> None:
        for request in [request for request in gateway.requests if which(request)]:
            gateway.requests.remove(request)
            assert request.task is not None
            assert isinstance(request.task.exception(), RequestAbortedError)

    @rule(at=GATEWAY)
    def converge(self, at: int) -> None:
        gateway = self.gateways[at]
        self.run(gateway.bench.manager.converge())
        gateway.behind.clear()

    @rule(at=GATEWAY)
    def engine_dies(self, at: int) -> None:
        """What is being answered goes on here: the supervisor gives it to the new engine."""
        gateway = self.gateways[at]
        before = {str(managed.version): managed for managed in gateway.bench.board.versions()}
        gateway.bench.engine.die()
        self.run(gateway.bench.engine.start())
        assert gateway.bench.engine.adapters == {}
        self.run(gateway.bench.manager.restore(gateway.bench.engine))
        after = {str(managed.version): managed for managed in gateway.bench.board.versions()}
        for request in gateway.requests:
            assert after[request.version] is before[request.version]

    @rule(at=GATEWAY, killed=st.booleans())
    def gateway_restarts(self, at: int, killed: bool) -> None:
        gateway = self.gateways[at]
        for request in list(gateway.requests):
            self.end(gateway, request)
        if killed:
            gateway.bench.store.close()  # as the kernel does; what it would have removed stays
        self.run(gateway.bench.close())
        self.gateways[at] = Gateway(self.run(self.make()))

    @precondition(lambda self: not any(gateway.requests for gateway in self.gateways))
    @rule()
    def rest(self) -> None:
        """Both follow; then what nobody wants goes, whoever held it, as soon as threads have removed it."""

        async def nothing_is_left() -> None:
            async with asyncio.timeout(30):
                while {*self.gateways[0].bench.store.list()} != known:
                    for gateway in self.gateways:
                        await gateway.bench.manager.converge()

        known = {kept.version.digest for kept in self.registry.list_versions()}
        for at in range(2):
            self.converge(at)
        self.run(nothing_is_left())

    @rule(at=GATEWAY, name=NAME, content=st.none() | CONTENT)
    def begin(self, at: int, name: str, content: int | None) -> None:
        gateway, standing = self.gateways[at], self.standings[name]
        reference = name if content is None else self.version(name, content)
        if content is None:
            allowed = standing.answerers
        else:
            allowed = frozenset({reference if reference in standing.wanted else NOTHING})
        request = Request(name, "")
        request.task = self.run(self.start(gateway, request, reference))
        if request.task.done():
            assert isinstance(request.task.exception(), UnknownModelError)
        else:
            gateway.requests.append(request)
        if name not in gateway.behind:
            assert (request.version or NOTHING) in allowed

    async def start(self, gateway: Gateway, request: Request, reference: str) -> asyncio.Task[str]:
        task = asyncio.create_task(self.answer(gateway.bench, request, reference))
        await asyncio.sleep(0)
        return task

    async def answer(self, bench: Bench, request: Request, reference: str) -> str:
        with (
            bench.running.track("request") as running,
            bench.board.lease(reference, param="adapter") as lease,
        ):
            running.version = request.version = lease.engine_name
            await request.finish.wait()
            assert lease.managed is not None
            return speaker(lease)

    @precondition(lambda self: any(gateway.requests for gateway in self.gateways))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        gateway = data.draw(st.sampled_from([gateway for gateway in self.gateways if gateway.requests]))
        self.end(gateway, data.draw(st.sampled_from(gateway.requests)))

    def end(self, gateway: Gateway, request: Request) -> None:
        assert request.version in gateway.bench.held  # until its last token
        gateway.requests.remove(request)
        request.finish.set()
        assert request.task is not None
        assert self.run(asyncio.wait_for(request.task, 30)) == request.version

    @invariant()
    def the_registry_wants_what_was_asked_for(self) -> None:
        if not hasattr(self, "gateways"):
            return
        for name, standing in self.standings.items():
            record, plan = self.registry.name(name), read_plan(self.registry.name(name))
            whole = {self.digests[content]: self.version(name, content) for content in range(NUM_CONTENTS)}
            found = Standing(
                known=frozenset(whole[kept.version.digest] for kept in record.versions),
                live=whole.get(record.live or ""),
                previous=whole.get(record.previous or ""),
                loaded=frozenset(whole[kept.version.digest] for kept in record.versions if kept.loaded),
                pinned=frozenset(whole[kept.version.digest] for kept in record.versions if kept.pinned),
                shares=frozenset((whole[digest], share) for digest, share in plan.shares.items())
                if plan
                else frozenset(),
                shadows=frozenset(whole[digest] for digest in plan.shadow) if plan else frozenset(),
            )
            assert found == standing

    @invariant()
    def each_gateway_is_as_the_registry_wants(self) -> None:
        if not hasattr(self, "gateways"):
            return
        self.run(settle())
        for gateway in self.gateways:
            bench = gateway.bench
            uses = Counter(request.version for request in gateway.requests)
            held = set(uses)
            for name in [name for name in NAMES if name not in gateway.behind]:
                standing, behind = self.standings[name], bench.board.behind(name)
                assert (str(behind.version) if behind is not None else None) == standing.live
                states = {str(m.version): m.state for m in bench.board.versions(name)}
                live = {version for version, state in states.items() if state is AdapterState.LIVE}
                draining = {version for version, state in states.items() if state is AdapterState.DRAINING}
                assert live == standing.wanted
                assert draining == {v for v in uses if v.startswith(f"{name}@")} - standing.wanted
                assert name in gateway.failed or states.keys() == live | draining
                held |= live
                status = bench.manager.status(name)
                assert status is None or status.settled
            assert {managed.in_flight for managed in bench.board.versions()} <= {0, *uses.values()}
            for managed in bench.board.versions():
                assert managed.in_flight == uses[str(managed.version)]
            if not gateway.behind:
                assert set(bench.held) == held
            assert len(bench.held) == len(set(bench.held))
            assert len(bench.running) == len(gateway.requests)

    @invariant()
    def what_any_gateway_may_need_is_in_their_store(self) -> None:
        if not hasattr(self, "gateways"):
            return
        needed = {kept.version.digest for kept in self.registry.list_versions()}
        for gateway in self.gateways:
            up = (m for m in gateway.bench.board.versions() if m.state is not AdapterState.FAILED)
            needed |= {managed.version.digest for managed in up}
        assert needed <= {*self.gateways[0].bench.store.list()}

    @invariant()
    def each_gateway_lists_what_is_there_now(self) -> None:
        """Although it makes anew only what has changed since the list before."""
        if not hasattr(self, "gateways"):
            return
        for gateway in self.gateways:
            manager = gateway.bench.manager
            listed = orjson.dumps(self.run(gateway.listing.render(manager.records())))
            assert listed == orjson.dumps([adapter_fields(status) for status in manager.statuses()])

    def teardown(self) -> None:
        if not hasattr(self, "gateways"):
            return
        try:
            for gateway in self.gateways:
                for request in list(gateway.requests):
                    self.end(gateway, request)
                self.run(gateway.bench.close())
            if self.verbs_went_well:  # or else that is what there is to say
                self.the_audit_has_every_verb()
        finally:
            self.run(cancel_what_is_left())
            self.run(self.loop.shutdown_default_executor())
            self.loop.close()
            self.registry.close()
            for version in self.gateways[0].bench.store.list():
                (self.folder / "store" / version).chmod(0o700)
            shutil.rmtree(self.folder)

    def the_audit_has_every_verb(self) -> None:
        found: Counter[tuple[str, bool]] = Counter()
        for record in self.registry.list_events(without_actions=(STATE_ACTION,), limit=100_000):
            if record.event.actor == "test":
                found[record.event.action, record.event.outcome == "done"] += 1
        assert found == self.verbs


def speaker(lease: Lease) -> str:
    """Who answers, by the version that is held."""
    assert lease.managed is not None
    assert lease.handle is not None
    assert str(lease.managed.version) == lease.handle.name
    assert lease.managed.in_flight >= 1
    return lease.engine_name


async def settle() -> None:
    """Let versions that nobody uses finish their draining."""
    for _ in range(_SETTLING_TURNS):
        await asyncio.sleep(0)


async def cancel_what_is_left() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


TestVersions = Versions.TestCase
TestVersions.settings = settings(
    max_examples=int(os.environ.get("HOTSWAP_TEST_STATEFUL_EXAMPLES", "20")),
    stateful_step_count=30,
    deadline=None,
    # Thirty steps can be read as they are; making them fewer would take minutes.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
