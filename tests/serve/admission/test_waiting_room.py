"""The waiting room against a model of it: who runs, who waits, in which order, and that nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serve.admission.admission import MAX_RETRY_SECONDS, MIN_RETRY_SECONDS, Admission
from serve.errors import DrainingError, QueueFullError
from tests.serve.admission.settling import settle

T = TypeVar("T")


@dataclass
class Visitor:
    """One request: its task, and the event that lets it leave the engine."""

    number: int
    sequences: int
    prompt_tokens: int
    leave: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class WaitingRoom(RuleBasedStateMachine):
    """Random visitors; the model is two lists."""

    @initialize(max_running=st.integers(1, 4), max_requests=st.integers(0, 6), max_tokens=st.integers(1, 60))
    def open(self, max_running: int, max_requests: int, max_tokens: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.now = 0.0
        self.admission = Admission(
            max_running=max_running,
            max_queued_requests=max_requests,
            max_queued_tokens=max_tokens,
            clock=lambda: self.now,
        )
        self.running: list[Visitor] = []
        self.waiting: list[Visitor] = []
        self.entered: list[int] = []
        self.expected_entered: list[int] = []
        self.count = 0
        self.draining = False

    def run_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def fits(self, sequences: int) -> bool:
        used = sum(visitor.sequences for visitor in self.running)
        return used == 0 or used + sequences <= self.admission.max_running

    def admit(self) -> None:
        while self.waiting and self.fits(self.waiting[0].sequences):
            visitor = self.waiting.pop(0)
            self.running.append(visitor)
            self.expected_entered.append(visitor.number)

    async def visit(self, visitor: Visitor) -> None:
        slot = self.admission.slot(sequences=visitor.sequences, prompt_tokens=visitor.prompt_tokens)
        async with slot as waited:
            assert waited >= 0
            self.entered.append(visitor.number)
            await visitor.leave.wait()

    @rule(visits=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 20)), min_size=1, max_size=4))
    def arrive(self, visits: list[tuple[int, int]]) -> None:
        for sequences, prompt_tokens in visits:
            self.arrive_alone(sequences, prompt_tokens)

    def arrive_alone(self, sequences: int, prompt_tokens: int) -> None:
        self.count += 1
        visitor = Visitor(self.count, sequences, prompt_tokens)

        async def start() -> None:
            visitor.task = asyncio.create_task(self.visit(visitor))
            await settle()

        self.run_loop(start())
        assert visitor.task is not None
        if self.draining:
            assert isinstance(visitor.task.exception(), DrainingError)
            return
        must_wait = bool(self.waiting) or not self.fits(sequences)
        queued_tokens = sum(other.prompt_tokens for other in self.waiting)
        # A prompt that is too long for the queue may wait where nobody else does: it could never come in else.
        too_many = len(self.waiting) + 1 > self.admission.max_queued_requests
        too_long = bool(self.waiting) and queued_tokens + prompt_tokens > self.admission.max_queued_tokens
        if must_wait and (too_many or too_long):
            refusal = visitor.task.exception()
            assert isinstance(refusal, QueueFullError)
            assert isinstance(refusal.retry_after_seconds, int)
            assert MIN_RETRY_SECONDS <= refusal.retry_after_seconds <= MAX_RETRY_SECONDS
            return
        assert not visitor.task.done()
        self.waiting.append(visitor)
        if not must_wait:
            self.admit()

    @precondition(lambda self: self.running or self.waiting)
    @rule(data=st.data(), seconds=st.floats(0, 500))
    def end_together(self, data: st.DataObject, seconds: float) -> None:
        """Some leave and some are cancelled in one step of the loop, in any order, running or waiting."""
        self.now += seconds
        present = [*self.running, *self.waiting]
        chosen = data.draw(st.lists(st.sampled_from(present), min_size=1, max_size=2, unique_by=id))
        cancelled = [data.draw(st.booleans()) or visitor in self.waiting for visitor in chosen]

        async def end() -> None:
            for visitor, cancel in zip(chosen, cancelled, strict=True):
                assert visitor.task is not None
                if cancel:
                    visitor.task.cancel()
                else:
                    visitor.leave.set()
            await settle()

        self.run_loop(end())
        for visitor, cancel in zip(chosen, cancelled, strict=True):
            assert visitor.task is not None
            assert visitor.task.done()
            assert visitor.task.cancelled() == cancel
            assert cancel or visitor.task.exception() is None
        self.running = [visitor for visitor in self.running if visitor not in chosen]
        self.waiting = [visitor for visitor in self.waiting if visitor not in chosen]
        self.admit()

    @precondition(lambda self: self.waiting and self.running)
    @rule()
    def cancel_whoever_was_just_let_in(self) -> None:
        """The turn and the cancellation fall into one step, either way round."""
        first, others = self.waiting[0], list(self.running)

        async def end() -> None:
            for visitor in others:
                visitor.leave.set()
            # The last to leave hands the turn on when it runs; until `first` runs, it holds a turn it never uses.
            await asyncio.sleep(0)
            assert first.task is not None
            first.task.cancel()
            await settle()

        self.run_loop(end())
        assert first.task is not None
        assert first.task.cancelled()
        # It may have been inside already for a moment.
        self.entered = [number for number in self.entered if number != first.number]
        self.running, self.waiting = [], self.waiting[1:]
        self.admit()

    @precondition(lambda self: self.count >= 15 and not self.draining)
    @rule()
    def drain(self) -> None:
        self.admission.drain(retry_after_seconds=7)
        self.draining = True

    @invariant()
    def the_room_is_as_modelled(self) -> None:
        admission = self.admission
        assert admission.running == sum(visitor.sequences for visitor in self.running)
        assert admission.running <= admission.max_running or len(self.running) == 1
        assert admission.queued_requests == len(self.waiting)
        assert admission.queued_tokens == sum(visitor.prompt_tokens for visitor in self.waiting)
        assert admission.requests == len(self.running) + len(self.waiting)
        assert self.entered == self.expected_entered
        assert admission.queued_requests <= admission.max_queued_requests
        assert admission.queued_tokens <= admission.max_queued_tokens or admission.queued_requests == 1
        assert not (self.waiting and self.fits(self.waiting[0].sequences)), "somebody waits for nothing"

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return

        present = [*self.running, *self.waiting]
        tasks = [visitor.task for visitor in present if visitor.task is not None]

        async def leave_all() -> None:
            for visitor in present:
                visitor.leave.set()
            for _ in present:
                await settle()

        async def end() -> None:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        try:
            self.run_loop(leave_all())
            admission = self.admission
            assert (admission.running, admission.requests) == (0, 0)
            assert (admission.queued_requests, admission.queued_tokens) == (0, 0)
            assert all(task.done() for task in tasks)
            self.run_loop(admission.wait_idle())
        finally:
            self.run_loop(end())
            self.loop.close()


TestWaitingRoom = WaitingRoom.TestCase


TestWaitingRoom.settings = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
