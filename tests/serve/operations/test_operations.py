"""Operations: one for each request, ended once, known again after a restart, and in nobody's way at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from adapters.registry.operations import OperationTable
from adapters.registry.records import Event
from adapters.registry.registry import Registry
from serve.errors import (
    AdapterMissingError,
    DrainingError,
    IdempotencyConflictError,
    OperationMissingError,
    RequestAbortedError,
)
from serve.observability.events import EventLog
from serve.operations import operations as module
from serve.operations.operation import Answer, Operation, OperationState, Order
from serve.operations.operations import Operations, Work, fingerprint
from tests.patience import patient
from tests.serve.conftest import migrated_registry

DONE = Answer(201, {"created": True})
SECONDS = patient(10)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    path = tmp_path / "registry.db"
    path.write_bytes(migrated_registry())
    with Registry(f"sqlite:///{path}") as opened:
        yield opened


@pytest.fixture
async def make(registry: Registry) -> AsyncIterator[Callable[..., Operations]]:
    made: list[Operations] = []
    log = EventLog(registry)

    def make(instance: str = "here", events: EventLog | None = None) -> Operations:
        made.append(Operations(OperationTable(registry, instance=instance), events or log))
        return made[-1]

    yield make
    for operations in made:
        await operations.abandon()
        await operations.close()
    await log.close()


def order(key: str | None = None, *, asked: str = "this", name: str = "risk", actor: str = "me") -> Order:
    return Order("load", name, actor, "req-1", key, fingerprint({"asked": asked}))


def answers(answer: Answer = DONE) -> Work:
    async def work(operation: Operation) -> Answer:
        return answer

    return work


def waits(gate: asyncio.Event) -> Work:
    async def work(operation: Operation) -> Answer:
        await gate.wait()
        return DONE

    return work


def never(operation: Operation) -> asyncio.Future[Answer]:
    raise AssertionError("it is not begun")


async def test_an_operation_ends_with_its_answer_and_is_found(make: Callable[..., Operations]) -> None:
    operations = make()
    operation = await operations.start(order(), answers())
    assert await operation.wait(SECONDS)
    assert (operation.state, operation.answer) == (OperationState.DONE, DONE)
    await operations.wait_quiet()
    assert await operations.get(operation.id) is operation
    assert await operations.list() == [operation]
    with pytest.raises(OperationMissingError):
        await operations.get("op-none")


async def test_what_goes_wrong_is_the_answer(
    make: Callable[..., Operations], caplog: pytest.LogCaptureFixture
) -> None:
    operations = make()

    async def missing(operation: Operation) -> Answer:
        raise AdapterMissingError("no such adapter")

    async def broken(operation: Operation) -> Answer:
        raise ZeroDivisionError("a bug")

    for work, status, code in ((missing, 404, "adapter_not_found"), (broken, 500, "internal_error")):
        operation = await operations.start(order(), work)
        assert await operation.wait(SECONDS)
        assert operation.answer is not None
        assert (operation.state, operation.answer.status) == (OperationState.FAILED, status)
        assert operation.answer.body["error"]["code"] == code
        assert operation.answer.body["error"]["request_id"] == "req-1"
    assert "ZeroDivisionError" in caplog.text


async def test_waiting_ends_at_its_limit_and_the_operation_goes_on(make: Callable[..., Operations]) -> None:
    gate = asyncio.Event()
    operations = make()
    operation = await operations.start(order(), waits(gate))
    assert not await operation.wait(0)
    assert not await operation.wait(0.01)
    waiting = asyncio.create_task(operation.wait(SECONDS))
    await asyncio.sleep(0)
    waiting.cancel()
    gate.set()
    assert await operation.wait(SECONDS)


async def test_the_same_key_and_request_is_the_same_operation(make: Callable[..., Operations]) -> None:
    gate = asyncio.Event()
    operations = make()
    first = await operations.start(order("k"), waits(gate))
    assert await operations.start(order("k"), never) is first
    gate.set()
    await first.wait(SECONDS)
    await operations.wait_quiet()
    assert await operations.start(order("k"), never) is first
    other = await operations.start(order("k", actor="somebody else"), answers())
    assert other is not first


async def test_sent_twice_at_once_it_is_begun_once(make: Callable[..., Operations]) -> None:
    gate = asyncio.Event()
    operations = make()
    begun: list[str] = []

    async def work(operation: Operation) -> Answer:
        begun.append(operation.id)
        await gate.wait()
        return DONE

    found = await asyncio.gather(*(operations.start(order("k"), work) for _ in range(5)))
    assert len({operation.id for operation in found}) == 1
    gate.set()
    await found[0].wait(SECONDS)
    assert begun == [found[0].id]


async def test_the_same_key_for_another_request_is_refused(make: Callable[..., Operations]) -> None:
    operations = make()
    await operations.start(order("k"), answers())
    with pytest.raises(IdempotencyConflictError):
        await operations.start(order("k", asked="that"), never)
    await operations.wait_quiet()
    with pytest.raises(IdempotencyConflictError):
        await operations.start(order("k", asked="that"), never)


async def test_a_restart_forgets_no_answer(make: Callable[..., Operations]) -> None:
    first = make()
    before = await first.start(order("k"), answers())
    await first.close()
    second = make()
    await second.recover()
    again = await second.start(order("k"), never)
    assert (again.id, again.answer, again.state) == (before.id, DONE, OperationState.DONE)
    assert await again.wait(SECONDS)
    assert (await second.get(before.id)).answer == DONE
    with pytest.raises(IdempotencyConflictError):
        await second.start(order("k", asked="that"), never)


async def test_what_died_with_its_process_is_failed_and_may_be_asked_for_again(
    make: Callable[..., Operations],
) -> None:
    gate = asyncio.Event()
    died = await make("here").start(order("k"), waits(gate))
    elsewhere = await make("there").start(order("other"), waits(gate))
    successor = make("here")
    await successor.recover()
    failed = await successor.get(died.id)
    assert failed.answer is not None
    assert (failed.state, failed.answer.status) == (OperationState.FAILED, 503)
    assert failed.answer.body["error"]["code"] == "aborted"
    assert (await successor.get(elsewhere.id)).state is OperationState.RUNNING
    again = await successor.start(order("k"), answers())
    assert await again.wait(SECONDS)


async def test_an_operation_of_another_gateway_is_shown_and_not_waited_for(
    make: Callable[..., Operations],
) -> None:
    gate = asyncio.Event()
    running = await make("there").start(order("k"), waits(gate))
    seen = await make("here").start(order("k"), never)
    assert (seen.id, seen.elsewhere) == (running.id, True)
    assert not await seen.wait(SECONDS)
    gate.set()
    await running.wait(SECONDS)


async def test_try_again_is_not_the_answer_to_the_attempt_that_follows(
    make: Callable[..., Operations],
) -> None:
    operations = make()

    async def aborted(operation: Operation) -> Answer:
        raise RequestAbortedError("the server is shutting down")

    first = await operations.start(order("k"), aborted)
    await operations.wait_quiet()
    second = await operations.start(order("k"), answers())
    assert second.id != first.id
    assert await second.wait(SECONDS)
    assert second.answer == DONE


async def test_who_heard_try_again_may_do_so_at_once(make: Callable[..., Operations]) -> None:
    operations = make()

    async def aborted(operation: Operation) -> Answer:
        raise RequestAbortedError("the server is shutting down")

    for _ in range(20):
        first = await operations.start(order("k"), aborted)
        assert await first.wait(SECONDS)
        second = await operations.start(order("k"), aborted)
        assert second.id != first.id
        await operations.wait_quiet()


async def test_it_is_not_quiet_before_the_first_step_of_an_operation(make: Callable[..., Operations]) -> None:
    operations = make()
    operation = await operations.start(order(), answers())
    await operations.wait_quiet()
    assert operation.ended


async def test_steps_of_the_adapter_are_phases(registry: Registry, make: Callable[..., Operations]) -> None:
    log = EventLog(registry)
    operations = make(events=log)
    gate = asyncio.Event()
    operation = await operations.start(order(), waits(gate))
    operation.enter("check")
    for name, state in (("risk", "registered"), ("tone", "live"), ("risk", "checked"), ("risk", "loading")):
        log.note(Event("gateway", "state", state, name, "a" * 64))
    assert [phase.phase for phase in operation.current_phases()] == ["check", "store", "load"]
    gate.set()
    await operation.wait(SECONDS)
    operation.enter("late")
    assert [phase.phase for phase in operation.phases] == ["check", "store", "load"]
    assert all(phase.seconds >= 0 for phase in operation.phases)
    await log.close()


async def test_after_the_end_nothing_is_begun(make: Callable[..., Operations]) -> None:
    operations = make()
    operations.refuse()
    with pytest.raises(DrainingError):
        await operations.start(order(), never)


async def test_abandoned_operations_say_so(make: Callable[..., Operations]) -> None:
    operations = make()
    operation = await operations.start(order(), waits(asyncio.Event()))
    await asyncio.sleep(0)
    await operations.abandon()
    await operations.wait_quiet()
    assert operation.answer is not None
    assert operation.answer.body["error"]["code"] == "aborted"


async def test_only_so_many_are_kept_in_memory(
    make: Callable[..., Operations], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 2)
    operations = make()
    made = [await operations.start(order(), answers()) for _ in range(4)]
    await operations.wait_quiet()
    assert [await operations.get(operation.id) is operation for operation in made].count(True) == 2
    assert [operation.id for operation in await operations.list(limit=9)] == [
        made[n].id for n in (3, 2, 1, 0)
    ]
