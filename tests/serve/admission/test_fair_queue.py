"""Whose turn it is: shares by weight, order within a flow, and nobody who waits for ever."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serve.admission.fair_queue import FairQueue, Flow, Waiting


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def waiting(loop: asyncio.AbstractEventLoop, flow: Flow, *, work: int = 10, tokens: int = 5) -> Waiting:
    return Waiting(flow, 1, tokens, work, loop.create_future())


def serve_next(queue: FairQueue) -> Waiting:
    entry = queue.first()
    assert entry is not None
    queue.serve(entry)
    return entry


def served_work(queue: FairQueue, count: int) -> Counter[str]:
    work: Counter[str] = Counter()
    for _ in range(count):
        entry = serve_next(queue)
        work[entry.flow.tenant] += entry.work
    return work


def test_a_thousand_of_one_tenant_delay_another_by_one_turn(loop: asyncio.AbstractEventLoop) -> None:
    queue = FairQueue()
    for _ in range(1000):
        queue.push(waiting(loop, Flow("flood")))
    for _ in range(50):
        serve_next(queue)
    queue.push(waiting(loop, Flow("quiet")))
    turns = [serve_next(queue).flow.tenant for _ in range(3)]
    assert "quiet" in turns[:2]


def test_one_that_always_comes_back_with_one_request_takes_no_more_than_its_share(
    loop: asyncio.AbstractEventLoop,
) -> None:
    queue = FairQueue()
    for _ in range(300):
        queue.push(waiting(loop, Flow("batch")))
    queue.push(waiting(loop, Flow("eager")))
    served: Counter[str] = Counter()
    for _ in range(200):
        tenant = serve_next(queue).flow.tenant
        served[tenant] += 1
        if tenant == "eager":
            queue.push(waiting(loop, Flow("eager")))
    assert abs(served["eager"] - served["batch"]) <= 2


def test_work_is_shared_by_weight_whatever_the_sizes(loop: asyncio.AbstractEventLoop) -> None:
    queue = FairQueue()
    for _ in range(600):
        queue.push(waiting(loop, Flow("gold", weight=3.0), work=100))
        queue.push(waiting(loop, Flow("lead", weight=1.0), work=10))
        queue.push(waiting(loop, Flow("tin", weight=1.0), work=50))
    work = served_work(queue, 500)
    assert work["gold"] / work["lead"] == pytest.approx(3, rel=0.05)
    assert work["gold"] / work["tin"] == pytest.approx(3, rel=0.05)


def test_a_tenants_adapters_share_what_the_tenant_gets(loop: asyncio.AbstractEventLoop) -> None:
    queue = FairQueue()
    for number in range(300):
        for adapter in ("a", "b", "c"):
            queue.push(waiting(loop, Flow("many", adapter)))
        queue.push(waiting(loop, Flow("one", None)))
        del number
    served: Counter[tuple[str, str | None]] = Counter()
    for _ in range(300):
        entry = serve_next(queue)
        served[entry.flow.tenant, entry.flow.adapter] += 1
    assert served["one", None] == pytest.approx(150, abs=2)
    assert all(served["many", adapter] == pytest.approx(50, abs=2) for adapter in ("a", "b", "c"))


def test_what_was_not_used_is_given_back_as_earlier_turns(loop: asyncio.AbstractEventLoop) -> None:
    queue = FairQueue()
    for _ in range(400):
        queue.push(waiting(loop, Flow("careful"), work=10))
        queue.push(waiting(loop, Flow("wishful"), work=100))
    work: Counter[str] = Counter()
    for _ in range(300):
        entry = serve_next(queue)
        used = min(10, entry.work)
        work[entry.flow.tenant] += used
        queue.refund(entry.flow, entry.work - used)
    assert work["careful"] == pytest.approx(work["wishful"], rel=0.1)


def test_what_was_used_beyond_what_was_charged_for_is_paid_with_later_turns(
    loop: asyncio.AbstractEventLoop,
) -> None:
    queue = FairQueue()
    for _ in range(400):
        queue.push(waiting(loop, Flow("honest"), work=100))
        queue.push(waiting(loop, Flow("silent"), work=10))
    work: Counter[str] = Counter()
    for _ in range(300):
        entry = serve_next(queue)
        work[entry.flow.tenant] += 100
        queue.owe(entry.flow, 100 - entry.work)
    assert work["honest"] == pytest.approx(work["silent"], rel=0.1)


def test_among_the_adapters_of_one_tenant_it_is_the_same(loop: asyncio.AbstractEventLoop) -> None:
    queue = FairQueue()
    for _ in range(400):
        queue.push(waiting(loop, Flow("one", "honest"), work=100))
        queue.push(waiting(loop, Flow("one", "silent"), work=10))
    served: Counter[str | None] = Counter()
    for _ in range(300):
        entry = serve_next(queue)
        served[entry.flow.adapter] += 1
        queue.owe(entry.flow, 100 - entry.work)
    assert served["honest"] == pytest.approx(served["silent"], rel=0.1)


def test_the_longest_loses_what_came_last(loop: asyncio.AbstractEventLoop) -> None:
    queue = FairQueue()
    entries = [waiting(loop, Flow("flood", "a")) for _ in range(3)]
    entries += [waiting(loop, Flow("flood", "b")), waiting(loop, Flow("heavy", weight=4.0), tokens=1)]
    for entry in entries:
        queue.push(entry)
    newcomer = waiting(loop, Flow("quiet"))
    queue.push(newcomer)
    assert queue.newest_of_longest(newcomer.flow, "requests") is entries[2]
    assert queue.has_longer(Flow("quiet"), "requests", 1)
    assert queue.has_longer(Flow("flood", "b"), "requests", 1)
    assert not queue.has_longer(Flow("flood", "a"), "requests", 1)
    assert queue.has_longer(Flow("heavy", weight=4.0), "requests", 1)
    assert not queue.has_longer(Flow("new"), "tokens", 1000)


def test_of_equals_the_newcomer_gives_way(loop: asyncio.AbstractEventLoop) -> None:
    queue = FairQueue()
    queue.push(waiting(loop, Flow("a")))
    newcomer = waiting(loop, Flow("b"))
    queue.push(newcomer)
    assert queue.newest_of_longest(newcomer.flow, "requests") is newcomer
    assert not queue.has_longer(Flow("b"), "requests", 1)


def test_only_tenants_that_took_something_lately_are_remembered(loop: asyncio.AbstractEventLoop) -> None:
    queue = FairQueue()
    for number in range(5000):
        queue.charge(Flow(f"direct-{number % 50}"), 10)
        entry = waiting(loop, Flow(f"queued-{number % 50}", f"adapter-{number % 7}"))
        queue.push(entry)
        (queue.serve if number % 2 else queue.remove)(entry)
    shares = queue._shares
    assert len(shares._members) <= 100
    assert len(shares._turns) + len(shares._ahead) < 600
    queue.forget()
    assert not queue._shares._members


FLOWS = [
    Flow(tenant, adapter, weight)
    for tenant, weight in (("a", 1.0), ("b", 2.0), ("c", 0.5))
    for adapter in (None, "x")
]


class Queueing(RuleBasedStateMachine):
    """Random arrivals, turns and departures against lists; who waits all the time gets a share all the time."""

    @initialize()
    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.queue = FairQueue()
        self.lines: dict[Flow, list[Waiting]] = defaultdict(list)
        self.work: Counter[str] = Counter()  # served since the tenant began to wait without a break
        self.since: dict[str, Counter[str]] = {}

    @rule(flow=st.sampled_from(FLOWS), work=st.integers(1, 100), tokens=st.integers(0, 9))
    def arrive(self, flow: Flow, work: int, tokens: int) -> None:
        entry = waiting(self.loop, flow, work=work, tokens=tokens)
        if not self.backlog(flow.tenant):
            self.since[flow.tenant] = Counter(self.work)
        self.queue.push(entry)
        self.lines[flow].append(entry)

    @rule(flow=st.sampled_from(FLOWS), work=st.integers(1, 100))
    def go_straight_in(self, flow: Flow, work: int) -> None:
        """Only where nobody waits, as in the waiting room."""
        if not len(self.queue):
            self.queue.charge(flow, work)

    @precondition(lambda self: bool(self.queue))
    @rule()
    def serve(self) -> None:
        entry = serve_next(self.queue)
        assert self.lines[entry.flow].pop(0) is entry, "out of order within a flow"
        self.work[entry.flow.tenant] += entry.work

    @precondition(lambda self: bool(self.queue))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from([entry for line in self.lines.values() for entry in line]))
        self.lines[entry.flow].remove(entry)
        self.queue.remove(entry)

    def backlog(self, tenant: str) -> int:
        return sum(len(line) for flow, line in self.lines.items() if flow.tenant == tenant)

    @invariant()
    def it_holds_what_it_should(self) -> None:
        entries = [entry for line in self.lines.values() for entry in line]
        assert len(self.queue) == len(entries)
        assert self.queue.tokens == sum(entry.prompt_tokens for entry in entries)
        assert (self.queue.first() is None) == (not entries)

    @invariant()
    def whoever_waits_gets_a_share(self) -> None:
        """Between two that wait all the time the served work differs by a request of each, over their weights."""
        weights = {flow.tenant: flow.weight for flow in FLOWS}
        present = [tenant for tenant in weights if self.backlog(tenant)]
        for one in present:
            for other in present:
                began = max((self.since[one], self.since[other]), key=lambda work: sum(work.values()))
                mine = (self.work[one] - began[one]) / weights[one]
                theirs = (self.work[other] - began[other]) / weights[other]
                assert abs(mine - theirs) <= 100 / weights[one] + 100 / weights[other]

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.loop.close()


TestQueueing = Queueing.TestCase
TestQueueing.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
