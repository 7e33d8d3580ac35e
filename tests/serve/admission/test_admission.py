"""Who gets in, who is refused and who is told what, one case at a time."""

from __future__ import annotations

import asyncio

import pytest

from serve.admission.admission import DEFAULT_FLOW, MAX_RETRY_SECONDS, MIN_RETRY_SECONDS, Admission
from serve.admission.fair_queue import Flow
from serve.errors import DrainingError, QueueFullError, QueueTimeoutError
from tests.serve.admission.settling import settle

FLOOD, QUIET = Flow("flood"), Flow("quiet")


def make(*, max_running: int = 1, max_queued_requests: int = 8) -> Admission:
    return Admission(max_running=max_running, max_queued_requests=max_queued_requests, max_queued_tokens=100)


async def enter(
    admission: Admission, leave: asyncio.Event, sequences: int = 1, tokens: int = 1, flow: Flow = DEFAULT_FLOW
) -> None:
    async with admission.slot(sequences=sequences, prompt_tokens=tokens, flow=flow):
        await leave.wait()


async def test_a_wide_request_may_not_wait_where_nobody_may_wait() -> None:
    admission = make(max_running=4, max_queued_requests=0)
    leave = asyncio.Event()
    narrow = asyncio.create_task(enter(admission, leave, sequences=2))
    await settle()
    with pytest.raises(QueueFullError):
        await enter(admission, leave, sequences=3)
    leave.set()
    await narrow


async def test_several_prompts_are_refused_together_before_any_is_tokenised() -> None:
    admission = make(max_running=2, max_queued_requests=3)
    admission.check_open(requests=5)
    with pytest.raises(QueueFullError) as refused:
        admission.check_open(requests=6)
    assert "at most 3" in str(refused.value)
    admission.check_open(requests=4, sequences=5)  # wider than the engine: one at a time
    with pytest.raises(QueueFullError):
        admission.check_open(requests=5, sequences=5)


async def test_a_failing_holder_gives_its_place_back() -> None:
    admission = make()
    with pytest.raises(LookupError):
        async with admission.slot(sequences=1, prompt_tokens=3):
            raise LookupError
    assert (admission.running, admission.requests) == (0, 0)
    await admission.wait_idle()


async def test_the_time_spent_waiting_is_told() -> None:
    now = 0.0
    admission = Admission(max_running=1, max_queued_requests=1, max_queued_tokens=9, clock=lambda: now)
    leave, told = asyncio.Event(), asyncio.Future[float]()
    holder = asyncio.create_task(enter(admission, leave))

    async def wait() -> None:
        async with admission.slot(sequences=1, prompt_tokens=1) as waited:
            told.set_result(waited)

    await settle()
    waiter = asyncio.create_task(wait())
    await settle()
    now = 2.5
    leave.set()
    assert await told == 2.5
    await asyncio.gather(holder, waiter)


@pytest.mark.parametrize(
    ("seconds_each", "expected"), [(0.001, MIN_RETRY_SECONDS), (4.0, 12), (1000.0, MAX_RETRY_SECONDS)]
)
async def test_retry_after_follows_the_rate_at_which_requests_finish(
    seconds_each: float, expected: int
) -> None:
    now = 0.0
    admission = Admission(max_running=1, max_queued_requests=3, max_queued_tokens=99, clock=lambda: now)
    leaves = [asyncio.Event() for _ in range(6)]
    tasks = []
    for leave in leaves[:4]:
        tasks.append(asyncio.create_task(enter(admission, leave)))
        await settle()
    for place in range(2):  # the second finish is the first whose distance to another is known
        now += seconds_each
        leaves[place].set()
        await settle()
        tasks.append(asyncio.create_task(enter(admission, leaves[4 + place])))
        await settle()
    with pytest.raises(QueueFullError) as refused:
        admission.check_open()
    assert refused.value.retry_after_seconds == expected
    for leave in leaves:
        leave.set()
    await asyncio.gather(*tasks)


async def test_draining_lets_those_who_wait_in_and_nobody_new() -> None:
    admission = make()
    leave = asyncio.Event()
    tasks = [asyncio.create_task(enter(admission, leave)) for _ in range(3)]
    await settle()
    admission.drain(retry_after_seconds=9)
    with pytest.raises(DrainingError) as refused:
        await enter(admission, leave)
    assert refused.value.retry_after_seconds == 9
    assert admission.draining
    leave.set()
    await asyncio.gather(*tasks)
    await admission.wait_idle()


async def test_a_holder_leaves_in_the_step_in_which_the_next_one_is_cancelled() -> None:
    admission = make()
    leave = asyncio.Event()
    holder, waiter, next_one = [asyncio.create_task(enter(admission, leave)) for _ in range(3)]
    await settle()
    leave.set()  # the holder is to run now, and the waiter's cancellation only after it
    waiter.cancel()
    await asyncio.gather(holder, next_one)
    assert waiter.cancelled()
    assert (admission.running, admission.requests, admission.queued_tokens) == (0, 0, 0)


async def test_a_narrow_request_does_not_overtake_a_wide_one_that_waits() -> None:
    admission = make(max_running=2)
    leave_first, leave_second = asyncio.Event(), asyncio.Event()
    first = asyncio.create_task(enter(admission, leave_first))
    await settle()
    wide = asyncio.create_task(enter(admission, leave_second, sequences=2))
    await settle()
    narrow = asyncio.create_task(enter(admission, leave_second))
    await settle()
    assert (admission.running, admission.queued_requests) == (1, 2)
    leave_first.set()
    await first
    assert (admission.running, admission.queued_requests) == (2, 1)
    leave_second.set()
    await asyncio.gather(wide, narrow)


async def test_while_held_nobody_new_starts_and_whoever_comes_waits() -> None:
    admission = Admission(max_running=2, max_queued_requests=1, max_queued_tokens=100)
    started = asyncio.Event()

    async def visit() -> None:
        async with admission.slot(sequences=1, prompt_tokens=1):
            started.set()

    async with admission.slot(sequences=1, prompt_tokens=1):
        with admission.hold():
            waiting = asyncio.create_task(visit())
            await asyncio.sleep(0)
            assert (admission.running, admission.queued_requests) == (1, 1)
            with pytest.raises(QueueFullError):
                admission.check_open()
        await waiting
    assert started.is_set()


async def test_holds_add_up() -> None:
    admission = Admission(max_running=2, max_queued_requests=1, max_queued_tokens=100)

    async def visit() -> None:
        async with admission.slot(sequences=1, prompt_tokens=1):
            pass

    with admission.hold():
        with admission.hold():
            waiting = asyncio.create_task(visit())
            await asyncio.sleep(0)
        assert admission.queued_requests == 1
    await waiting


async def test_a_tenant_that_floods_the_queue_takes_no_place_from_another() -> None:
    admission = make(max_queued_requests=4)
    leave = asyncio.Event()
    flood = [asyncio.create_task(enter(admission, leave, flow=FLOOD)) for _ in range(5)]  # one runs
    await settle()
    with pytest.raises(QueueFullError):
        await enter(admission, leave, flow=FLOOD)
    quiet = [asyncio.create_task(enter(admission, leave, flow=QUIET)) for _ in range(2)]
    await settle()
    assert admission.queued_requests == 4
    with pytest.raises(QueueFullError):  # now both have their half
        await enter(admission, leave, flow=QUIET)
    assert [task.done() for task in flood] == [False, False, False, True, True]
    for task in flood[3:]:
        refusal = task.exception()
        assert isinstance(refusal, QueueFullError)
        assert MIN_RETRY_SECONDS <= refusal.retry_after_seconds <= MAX_RETRY_SECONDS
    leave.set()
    await asyncio.gather(*flood[:3], *quiet)
    await admission.wait_idle()


async def test_long_prompts_give_way_to_a_tenant_with_short_ones() -> None:
    admission = make(max_queued_requests=9)
    leave = asyncio.Event()
    tasks = [
        asyncio.create_task(enter(admission, leave, tokens=40, flow=FLOOD)) for _ in range(3)
    ]  # one runs
    await settle()
    quiet = asyncio.create_task(enter(admission, leave, tokens=30, flow=QUIET))
    await settle()
    assert isinstance(tasks[2].exception(), QueueFullError)
    assert admission.queued_tokens == 70
    with pytest.raises(QueueFullError, match="70 prompt tokens wait"):
        await enter(admission, leave, tokens=90, flow=Flow("huge"))
    assert admission.queued_tokens == 70  # whoever was to give way for it stays
    leave.set()
    await asyncio.gather(*tasks[:2], quiet)


async def test_a_tenant_waits_for_its_turn_and_not_for_the_others_queue() -> None:
    admission = make(max_queued_requests=100)
    entered: list[str] = []

    async def visit(flow: Flow) -> None:
        async with admission.slot(sequences=1, prompt_tokens=1, flow=flow):
            entered.append(flow.tenant)
            await asyncio.sleep(0)

    with admission.hold():
        flood = [asyncio.create_task(visit(FLOOD)) for _ in range(50)]
        await settle()
        quiet = asyncio.create_task(visit(QUIET))
        await settle()
    await asyncio.gather(*flood, quiet)
    assert "quiet" in entered[:3]


async def test_a_narrow_request_of_another_flow_goes_before_a_wide_one_that_waits() -> None:
    admission = make(max_running=2)
    leave_first, leave_second = asyncio.Event(), asyncio.Event()
    first = asyncio.create_task(enter(admission, leave_first, flow=FLOOD))
    await settle()
    wide = asyncio.create_task(enter(admission, leave_second, sequences=2, flow=FLOOD))
    await settle()
    narrow = asyncio.create_task(enter(admission, leave_second, flow=QUIET))
    await settle()
    assert (admission.running, admission.queued_requests) == (2, 1)  # the engine does not stand idle
    leave_first.set()
    leave_second.set()
    await asyncio.gather(first, wide, narrow)


async def test_whoever_waits_too_long_is_told() -> None:
    admission = Admission(max_running=1, max_queued_requests=9, max_queued_tokens=9, queue_seconds=0.01)
    leave = asyncio.Event()
    holder = asyncio.create_task(enter(admission, leave))
    await settle()
    with pytest.raises(QueueTimeoutError, match=r"0\.01 s"):
        await enter(admission, leave)
    assert (admission.queued_requests, admission.queued_tokens, admission.requests) == (0, 0, 1)
    leave.set()
    await holder
    async with admission.slot(sequences=1, prompt_tokens=1):
        pass


async def test_one_that_is_sent_away_and_cancelled_in_the_same_step_leaves_nothing() -> None:
    admission = make(max_queued_requests=1)
    leave = asyncio.Event()
    holder, victim = [asyncio.create_task(enter(admission, leave, flow=FLOOD)) for _ in range(2)]
    await settle()
    with admission.hold():
        entry = admission._queue.first()
        assert entry is not None
        admission._queue.remove(entry)
        entry.turn.set_exception(QueueFullError("full", retry_after_seconds=1))
        victim.cancel()
        await settle()
    assert victim.cancelled()
    leave.set()
    await holder
    assert (admission.running, admission.requests, admission.queued_requests) == (0, 0, 0)


async def test_the_queue_is_no_longer_than_the_engine_serves_in_time() -> None:
    now = 0.0
    admission = Admission(
        max_running=1,
        max_queued_requests=100,
        max_queued_tokens=1000,
        max_wait_seconds=5.0,
        clock=lambda: now,
    )
    leaves = [asyncio.Event() for _ in range(80)]
    tasks = [asyncio.create_task(enter(admission, leave)) for leave in leaves]
    await settle()
    assert admission.queue_bound == 100  # nothing is known of the engine yet
    for leave in leaves[:40]:
        now += 0.5
        leave.set()
        await settle()
    assert (admission.queue_bound, admission.queued_requests) == (10, 39)
    with pytest.raises(QueueFullError, match=r"39 requests wait, about 20 s of work \(at most 5 s\)"):
        admission.check_open()
    for leave in leaves[40:71]:
        now += 0.5
        leave.set()
        await settle()
    assert admission.queued_requests == 8
    admission.check_open()
    for leave in leaves:
        leave.set()
    await asyncio.gather(*tasks)
    assert admission.queued_requests == 0


async def test_a_bound_that_shrank_sends_nobody_away_who_waits_already() -> None:
    now = 0.0
    admission = Admission(
        max_running=1, max_queued_requests=99, max_queued_tokens=999, max_wait_seconds=1.0, clock=lambda: now
    )
    leaves = [asyncio.Event() for _ in range(60)]
    tasks = [asyncio.create_task(enter(admission, leave)) for leave in leaves]
    await settle()
    for leave in leaves[:40]:
        now += 1.0
        leave.set()
        await settle()
    assert (admission.queue_bound, admission.queued_requests) == (1, 19)
    with pytest.raises(QueueFullError):
        await enter(admission, asyncio.Event())
    other = asyncio.Event()
    other.set()
    flow = asyncio.create_task(enter(admission, other, flow=Flow("other")))
    await settle()
    assert admission.queued_requests == 19  # one of the flood's for the other's
    for leave in leaves:
        leave.set()
    results = await asyncio.gather(*tasks, flow, return_exceptions=True)
    assert sum(isinstance(result, QueueFullError) for result in results) == 1
    assert not isinstance(results[-1], BaseException)
