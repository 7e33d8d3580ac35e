"""Ending a request before its time: every cause comes out once, and nothing else is caught."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.errors import DeadlineExceededError, RequestAbortedError, ServeError
from serve.running import ClientGoneError, RunningRequest, RunningRequests

CAUSES = (ClientGoneError, DeadlineExceededError, RequestAbortedError)


async def test_a_cause_comes_out_as_itself_and_the_task_goes_on() -> None:
    running = RunningRequests()
    started = asyncio.Event()

    async def drive() -> str:
        try:
            with running.track("req") as request:
                assert len(running) == 1
                request.version = "risk@3f2a91c0"
                started.set()
                await asyncio.Event().wait()
        except ServeError as error:
            await asyncio.sleep(0)  # the cancellation has been used up
            return type(error).__name__
        return "finished"

    for cause in CAUSES:
        started.clear()
        task = asyncio.create_task(drive())
        await started.wait()
        assert running.abort_all(cause("why")) == 1
        assert await task == cause.__name__
        assert len(running) == 0
        assert task.cancelling() == 0


async def test_the_first_cause_wins() -> None:
    running = RunningRequests()
    made: list[RunningRequest] = []

    async def drive() -> None:
        with running.track("req") as request:
            made.append(request)
            await asyncio.Event().wait()

    task = asyncio.create_task(drive())
    await asyncio.sleep(0)
    made[0].abort(DeadlineExceededError("first"))
    made[0].abort(ClientGoneError("second"))
    with pytest.raises(DeadlineExceededError, match="first"):
        await task


async def test_somebody_elses_cancellation_passes_through() -> None:
    running = RunningRequests()

    async def drive() -> None:
        with running.track("req"):
            await asyncio.Event().wait()

    task = asyncio.create_task(drive())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert len(running) == 0


async def test_an_error_of_the_work_itself_passes_through() -> None:
    running = RunningRequests()
    with pytest.raises(LookupError), running.track("req"):
        raise LookupError
    assert len(running) == 0


async def test_what_is_to_be_done_before_an_end_is_done_once_and_never_in_its_way(
    caplog: pytest.LogCaptureFixture,
) -> None:
    running, called = RunningRequests(), 0

    def broken() -> None:
        nonlocal called
        called += 1
        raise LookupError

    async def drive() -> None:
        with running.track("req") as request:
            request.before_abort = broken
            await asyncio.Event().wait()

    task = asyncio.create_task(drive())
    await asyncio.sleep(0)
    assert running.abort_all(ClientGoneError("gone")) == running.abort_all(ClientGoneError("again")) == 1
    with pytest.raises(ClientGoneError, match="gone"):
        await task
    assert called == 1
    assert "its end could not be prepared" in caplog.text


async def test_an_abort_after_the_end_does_nothing() -> None:
    running = RunningRequests()
    with running.track("req") as request:
        pass
    request.abort(ClientGoneError("late"))
    await asyncio.sleep(0)
    assert request.cause is None


async def test_an_abort_in_the_step_in_which_the_work_ends_is_not_left_behind() -> None:
    """The work's last future and the abort come in one step: the cause comes out, and no stray cancellation."""
    running = RunningRequests()
    last: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    made: list[RunningRequest] = []

    async def drive() -> str:
        try:
            with running.track("req") as request:
                made.append(request)
                await last
        except ClientGoneError:
            await asyncio.sleep(0)
            return "gone"
        await asyncio.sleep(0)
        return "done"

    task = asyncio.create_task(drive())
    await asyncio.sleep(0)
    last.set_result(None)
    made[0].abort(ClientGoneError("gone"))
    assert await task == "gone"


async def test_only_the_requests_of_one_version_are_ended() -> None:
    running = RunningRequests()

    async def drive(version: str | None) -> str:
        try:
            with running.track("req") as request:
                request.version = version
                await asyncio.Event().wait()
        except RequestAbortedError:
            return "ended"
        return "finished"

    tasks = [asyncio.create_task(drive(version)) for version in ("risk@1", "risk@2", None, "risk@1")]
    await asyncio.sleep(0)
    assert running.abort_version("risk@1", RequestAbortedError("unloaded")) == 2
    ended, _ = await asyncio.wait([tasks[0], tasks[3]])
    assert [task.result() for task in ended] == ["ended", "ended"]
    assert len(running) == 2
    running.abort_all(RequestAbortedError("shutdown"))
    assert await asyncio.gather(*tasks) == ["ended"] * 4


def test_a_request_is_only_tracked_inside_a_task() -> None:
    with pytest.raises(RuntimeError):
        RunningRequest("req")


@settings(deadline=None, max_examples=60)
@given(
    before=st.lists(st.sampled_from(["abort", "cancel", "finish", "step"]), max_size=6),
)
def test_every_request_ends_exactly_once_whatever_comes_together(before: list[str]) -> None:
    """Aborts, a stray cancellation and the natural end in any order: one outcome, and nobody stays listed."""

    async def scenario() -> None:
        running = RunningRequests()
        finish = asyncio.Event()
        outcomes: list[str] = []

        async def drive() -> None:
            try:
                with running.track("req"):
                    await finish.wait()
                    await asyncio.sleep(0)
            except ClientGoneError:
                outcomes.append("gone")
            except asyncio.CancelledError:
                outcomes.append("cancelled")
                raise
            else:
                outcomes.append("finished")

        task = asyncio.create_task(drive())
        await asyncio.sleep(0)
        for step in before:
            if step == "abort":
                running.abort_all(ClientGoneError("gone"))
            elif step == "cancel":
                task.cancel()
            elif step == "finish":
                finish.set()
            else:
                await asyncio.sleep(0)
        finish.set()
        await asyncio.gather(task, return_exceptions=True)
        assert len(running) == 0
        assert len(outcomes) == 1
        if outcomes == ["gone"]:
            assert "abort" in before
        if outcomes == ["cancelled"]:
            assert "cancel" in before
        if not {"abort", "cancel"} & set(before):
            assert outcomes == ["finished"]

    asyncio.run(scenario())
