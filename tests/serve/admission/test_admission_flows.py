"""The waiting room with several tenants, whoever comes, goes, is cancelled or sent away, and while it is held."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serve.admission.admission import Admission
from serve.admission.fair_queue import Flow
from serve.errors import QueueFullError
from tests.serve.admission.settling import settle

FLOWS = [Flow(tenant, adapter) for tenant in "abc" for adapter in (None, "x")]


@dataclass(eq=False)
class Visitor:
    """One request, and where it is."""

    flow: Flow
    sequences: int
    tokens: int
    leave: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    inside: bool = False
    number: int = 0


class Rooms(RuleBasedStateMachine):
    """Random visitors of six flows of three tenants."""

    @initialize(running=st.integers(1, 4), requests=st.integers(1, 8), tokens=st.integers(10, 60))
    def open(self, running: int, requests: int, tokens: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.admission = Admission(
            max_running=running, max_queued_requests=requests, max_queued_tokens=tokens
        )
        self.present: list[Visitor] = []
        self.entered: dict[Flow, int] = {}
        self.count = 0
        self.hold = ExitStack()
        self.held = False

    async def visit(self, visitor: Visitor) -> None:
        async with self.admission.slot(
            sequences=visitor.sequences, prompt_tokens=visitor.tokens, answer_tokens=5, flow=visitor.flow
        ):
            assert self.entered.get(visitor.flow, 0) < visitor.number, "out of order within a flow"
            self.entered[visitor.flow] = visitor.number
            visitor.inside = True
            await visitor.leave.wait()
            self.admission.refund(visitor.flow, 3)

    def waiting(self, tenant: str | None = None) -> list[Visitor]:
        return [v for v in self.present if not v.inside and tenant in (None, v.flow.tenant)]

    @rule(flow=st.sampled_from(FLOWS), sequences=st.integers(1, 5), tokens=st.integers(1, 20))
    def arrive(self, flow: Flow, sequences: int, tokens: int) -> None:
        self.count += 1
        visitor = Visitor(flow, sequences, tokens, number=self.count)
        before = {tenant: len(self.waiting(tenant)) for tenant in "abc"}

        async def start() -> None:
            visitor.task = asyncio.create_task(self.visit(visitor))
            await settle()

        self.present.append(visitor)
        self.loop.run_until_complete(start())
        gone = self.sweep()
        for other in gone:
            assert other.task is not None
            assert isinstance(other.task.exception(), QueueFullError)
            assert not other.inside
        queued = sum(v.tokens for v in self.waiting()) + sum(v.tokens for v in gone)
        if queued > self.admission.max_queued_tokens:
            return  # long prompts gave way, or the newcomer's was too long
        if visitor in gone:
            assert gone == [visitor]
            assert before[flow.tenant] + 1 >= max(before.values()), "refused, and others have more waiting"
        elif gone:
            (other,) = gone
            assert before[other.flow.tenant] > before[flow.tenant] or other.flow.tenant == flow.tenant

    def sweep(self) -> list[Visitor]:
        gone = [v for v in self.present if v.task is not None and v.task.done()]
        self.present = [v for v in self.present if v not in gone]
        return gone

    @precondition(lambda self: self.present)
    @rule(data=st.data())
    def end_together(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.present), min_size=1, max_size=3, unique_by=id))
        cancelled = {id(v): data.draw(st.booleans()) or not v.inside for v in chosen}

        async def end() -> None:
            for v in chosen:
                assert v.task is not None
                if cancelled[id(v)]:
                    v.task.cancel()
                else:
                    v.leave.set()
            await settle()

        self.loop.run_until_complete(end())
        assert set(self.sweep()) == set(chosen)

    @precondition(lambda self: self.waiting() and any(v.inside for v in self.present))
    @rule(data=st.data())
    def cancel_one_in_the_step_in_which_places_become_free(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.waiting()))
        holders = [v for v in self.present if v.inside]

        async def end() -> None:
            for v in holders:
                v.leave.set()
            await asyncio.sleep(0)
            assert one.task is not None
            one.task.cancel()
            await settle()

        self.loop.run_until_complete(end())
        self.sweep()
        assert one not in self.present
        # It may have been inside for a moment.
        assert not set(holders) & set(self.present)

    @rule()
    def hold_or_go_on(self) -> None:
        async def change() -> None:
            if self.held:
                self.hold.close()
            else:
                self.hold.enter_context(self.admission.hold())
            await settle()

        self.loop.run_until_complete(change())
        self.held = not self.held

    @invariant()
    def nothing_is_lost_and_no_place_stands_idle(self) -> None:
        admission = self.admission
        inside = [v for v in self.present if v.inside]
        waiting = self.waiting()
        assert admission.running == sum(v.sequences for v in inside)
        assert admission.running <= admission.max_running or len(inside) == 1
        assert admission.queued_requests == len(waiting) <= admission.max_queued_requests
        assert admission.queued_tokens == sum(v.tokens for v in waiting)
        assert admission.queued_tokens <= admission.max_queued_tokens or len(waiting) == 1
        assert admission.requests == len(self.present)
        if waiting and not self.held:
            first = admission._queue.first()
            assert first is not None
            assert admission.running
            assert admission.running + first.sequences > admission.max_running

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return

        async def end() -> None:
            self.hold.close()
            while self.present:
                for v in self.present:
                    v.leave.set()
                await settle()
                self.sweep()
            await self.admission.wait_idle()

        try:
            self.loop.run_until_complete(asyncio.wait_for(end(), 10))
            admission = self.admission
            assert (admission.running, admission.requests, admission.queued_requests) == (0, 0, 0)
            assert admission.queued_tokens == 0
        finally:
            self.loop.close()


TestRooms = Rooms.TestCase
TestRooms.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
