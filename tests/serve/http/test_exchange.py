"""One exchange: however it ends, it ends once, is counted once, and leaves nothing running."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from bases.errors import HotswapError
from serve.errors import DeadlineExceededError, QueueFullError, RequestAbortedError
from serve.http.errors import InternalError
from serve.http.exchange import STAGES, Exchange, ExchangeLimits, Exchanges, Record, Reply
from serve.observability.metrics import GatewayMetrics
from serve.running import RunningRequests

Work = Callable[[Exchange], Awaitable[None]]


@dataclass
class Client:
    """The other end of the connection."""

    sent: list[dict[str, Any]] = field(default_factory=list)
    reading: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    broken: bool = False

    def __post_init__(self) -> None:
        self.reading.set()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.reading.wait()
        if self.broken:
            raise OSError("broken pipe")
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


class Answer(Reply):
    """Does what the test says, and notes what it was told to say at the end."""

    def __init__(self, exchanges: Exchanges, work: Work) -> None:
        super().__init__(exchanges, "/generate", "req-1")
        self.work = work
        self.failures: list[HotswapError] = []

    async def run(self, exchange: Exchange) -> None:
        await self.work(exchange)

    async def fail(self, exchange: Exchange, error: HotswapError) -> None:
        self.failures.append(error)
        await exchange.event(b"error")
        await exchange.close_events()


@dataclass
class Stage:
    """Everything around one exchange."""

    exchanges: Exchanges
    client: Client = field(default_factory=Client)

    def answer(self, work: Work) -> Answer:
        return Answer(self.exchanges, work)

    def start(self, answer: Answer) -> asyncio.Task[None]:
        scope: dict[str, Any] = {"type": "http"}
        return asyncio.create_task(answer(scope, self.client.receive, self.client.send))

    def value(self, name: str, **labels: str) -> float:
        return self.exchanges.metrics.registry.get_sample_value(name, labels) or 0.0

    def aborts(self) -> dict[str, float]:
        reasons = ("client", "deadline", "server")
        found = {reason: self.value("hotswap_aborts_total", reason=reason) for reason in reasons}
        return {reason: count for reason, count in found.items() if count}

    def statuses(self) -> dict[str, float]:
        return {
            sample.labels["status"]: sample.value
            for family in self.exchanges.metrics.registry.collect()
            for sample in family.samples
            if sample.name == "hotswap_requests_total"
        }

    async def left_over(self) -> set[asyncio.Task[Any]]:
        for _ in range(3):
            await asyncio.sleep(0)
        assert len(self.exchanges.running) == 0
        current = asyncio.current_task()
        return {task for task in asyncio.all_tasks() if task is not current}


def make_stage(*, request_seconds: float = 60.0, send_seconds: float = 60.0) -> Stage:
    limits = ExchangeLimits(request_seconds=request_seconds, send_seconds=send_seconds)
    return Stage(Exchanges(RunningRequests(), GatewayMetrics(), limits))


class Held:
    """Work that holds something until it is ended, and says whether it was let go."""

    def __init__(self, *, streaming: bool) -> None:
        self.streaming = streaming
        self.started = asyncio.Event()
        self.released = 0

    async def __call__(self, exchange: Exchange) -> None:
        try:
            if self.streaming:
                await exchange.open_events()
                await exchange.event(b"delta")
            self.started.set()
            await asyncio.Event().wait()
        finally:
            self.released += 1


async def test_a_whole_answer_is_sent_and_counted() -> None:
    stage = make_stage()

    async def work(exchange: Exchange) -> None:
        exchange.record.adapter_resolved = True
        exchange.record.note_queue(0.5)
        exchange.record.note_queue(0.25)
        exchange.record.token(1)
        exchange.record.token(4)
        await exchange.json({"a": 1})

    await stage.start(stage.answer(work))
    assert stage.client.body == b'{"a":1}'
    assert dict(stage.client.sent[0]["headers"])[b"content-length"] == b"7"
    assert stage.statuses() == {"200": 1}
    assert stage.aborts() == {}
    assert stage.value("hotswap_completion_tokens_total", adapter="base", version="") == 5
    assert stage.value("hotswap_queue_seconds_sum", adapter="base", version="") == 0.5
    assert stage.value("hotswap_tpot_seconds_count", adapter="base", version="") == 1
    assert await stage.left_over() == set()


async def test_the_stages_of_a_request_add_up_to_all_of_it() -> None:
    stage = make_stage()

    async def work(exchange: Exchange) -> None:
        record = exchange.record
        record.started -= 10.0  # it came ten seconds ago
        record.adapter_resolved = True
        record.note_place(asked_seconds=1.0, waited_seconds=2.0)
        record.note_queue(2.5)
        record.note_ttft(6.0)
        record.last_token = record.started + 9.0
        await exchange.json({})

    await stage.start(stage.answer(work))
    seconds = {name: stage.value("hotswap_stage_seconds_sum", stage=name) for name in STAGES}
    sent = seconds.pop("send")
    assert seconds == pytest.approx(
        {"entry": 1.0, "admission": 2.0, "engine_queue": 0.5, "first_token": 2.5, "generation": 3.0}
    )
    assert sent >= 1.0


async def test_stages_whose_clocks_overlap_are_never_less_than_nothing() -> None:
    record = Record("/generate")
    record.note_place(asked_seconds=0.5, waited_seconds=5.0)
    record.note_place(asked_seconds=1.0, waited_seconds=0.0)
    record.note_ttft(2.0)
    assert record.stages() == {}
    record.started -= 10.0
    record.last_token = record.started + 3.0
    stages = record.stages()
    assert all(seconds >= 0.0 for seconds in stages.values())
    assert stages["entry"] == 0.5
    assert sum(stages.values()) >= 10.0


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_client_that_leaves_ends_the_work(streaming: bool) -> None:
    stage, work = make_stage(), Held(streaming=streaming)
    answer = stage.answer(work)
    task = stage.start(answer)
    await work.started.wait()
    stage.client.gone.set()
    await task  # nobody is left to tell: no error comes out
    assert work.released == 1
    assert answer.failures == []
    assert stage.aborts() == {"client": 1}
    assert stage.statuses() == {"200" if streaming else "499": 1}
    assert await stage.left_over() == set()


async def test_a_deadline_before_the_answer_comes_out_as_its_error() -> None:
    stage, work = make_stage(request_seconds=0.01), Held(streaming=False)
    answer = stage.answer(work)
    with pytest.raises(DeadlineExceededError, match=r"0\.01 s"):
        await stage.start(answer)
    assert work.released == 1
    assert answer.failures == []
    assert stage.client.sent == []
    assert stage.aborts() == {"deadline": 1}
    assert stage.statuses() == {"504": 1}
    assert await stage.left_over() == set()


async def test_a_deadline_inside_a_stream_is_told_in_the_stream_once() -> None:
    stage, work = make_stage(request_seconds=0.01), Held(streaming=True)
    answer = stage.answer(work)
    await stage.start(answer)
    assert work.released == 1
    assert [type(error) for error in answer.failures] == [DeadlineExceededError]
    assert stage.client.body == b"deltaerror"
    assert stage.client.sent[-1] == {"type": "http.response.body", "body": b""}
    assert stage.aborts() == {"deadline": 1}
    assert await stage.left_over() == set()


@pytest.mark.parametrize("streaming", [True, False])
async def test_the_server_ends_a_request_with_its_reason(streaming: bool) -> None:
    stage, work = make_stage(), Held(streaming=streaming)
    answer = stage.answer(work)
    task = stage.start(answer)
    await work.started.wait()
    stage.exchanges.running.abort_all(RequestAbortedError("shutdown"))
    stage.client.gone.set()  # too late: the first cause counts
    if streaming:
        await task
        assert [str(error) for error in answer.failures] == ["shutdown"]
    else:
        with pytest.raises(RequestAbortedError):
            await task
    assert stage.aborts() == {"server": 1}
    assert await stage.left_over() == set()


async def test_a_client_that_does_not_read_is_dropped() -> None:
    stage = make_stage(send_seconds=0.01)
    released = []

    async def work(exchange: Exchange) -> None:
        try:
            await exchange.open_events()
            stage.client.reading.clear()
            while True:
                await exchange.event(b"delta")
        finally:
            released.append(True)

    answer = stage.answer(work)
    await stage.start(answer)
    assert released == [True]
    assert answer.failures == []
    assert stage.aborts() == {"client": 1}
    assert await stage.left_over() == set()


async def test_a_client_that_stops_reading_before_the_error_is_told_is_dropped_too() -> None:
    stage, work = make_stage(send_seconds=0.01), Held(streaming=True)
    answer = stage.answer(work)
    task = stage.start(answer)
    await work.started.wait()
    stage.client.reading.clear()
    stage.exchanges.running.abort_all(RequestAbortedError("shutdown"))
    await task
    assert len(answer.failures) == 1
    assert await stage.left_over() == set()


async def test_a_broken_connection_is_a_client_that_left() -> None:
    stage = make_stage()
    stage.client.broken = True

    async def work(exchange: Exchange) -> None:
        await exchange.json({})

    await stage.start(stage.answer(work))
    assert stage.aborts() == {"client": 1}


async def test_a_strangers_cancellation_passes_through() -> None:
    stage, work = make_stage(), Held(streaming=False)
    task = stage.start(stage.answer(work))
    await work.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.released == 1
    assert stage.aborts() == {}
    assert await stage.left_over() == set()


async def test_a_refusal_is_counted_by_its_code() -> None:
    stage = make_stage()

    async def work(exchange: Exchange) -> None:
        raise QueueFullError("full", retry_after_seconds=1)

    with pytest.raises(QueueFullError):
        await stage.start(stage.answer(work))
    assert stage.value("hotswap_rejections_total", code="queue_full") == 1
    assert stage.statuses() == {"429": 1}


async def test_a_bug_before_the_answer_goes_to_the_outermost_handler() -> None:
    stage = make_stage()

    async def work(exchange: Exchange) -> None:
        raise LookupError("bug")

    answer = stage.answer(work)
    with pytest.raises(LookupError):
        await stage.start(answer)
    assert answer.failures == []
    assert stage.statuses() == {"500": 1}


async def test_a_bug_inside_a_stream_ends_it_with_a_reason_that_gives_nothing_away() -> None:
    stage = make_stage()

    async def work(exchange: Exchange) -> None:
        await exchange.open_events()
        raise LookupError("a path of this machine")

    answer = stage.answer(work)
    await stage.start(answer)
    assert [type(error) for error in answer.failures] == [InternalError]
    assert "path" not in str(answer.failures[0])
    assert await stage.left_over() == set()


def test_time_per_token_is_of_one_sequence() -> None:
    record = Record("/generate")
    assert record.tpot_seconds is None
    record.sequences, record.completion_tokens = 2, 22
    record.ttft_seconds, record.last_token = 1.0, record.started + 3.0
    assert record.tpot_seconds == pytest.approx(0.2)
    record.completion_tokens = 3  # fewer than two a sequence
    assert record.tpot_seconds is None


def test_of_several_prompts_the_longest_wait_and_the_first_token_count() -> None:
    record = Record("/generate")
    for seconds in (0.2, 0.5, 0.1):
        record.note_queue(seconds)
        record.note_ttft(seconds)
    assert (record.queue_seconds, record.ttft_seconds) == (0.5, 0.1)


async def test_the_deadlines_timer_does_not_outlive_the_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle] = []
    genuine = loop.call_later

    def call_later(*given: Any, **options: Any) -> asyncio.TimerHandle:
        timers.append(genuine(*given, **options))
        return timers[-1]

    monkeypatch.setattr(loop, "call_later", call_later)
    stage = make_stage()

    async def work(exchange: Exchange) -> None:
        assert len(timers) == 1
        raise LookupError

    with pytest.raises(LookupError):
        await stage.start(stage.answer(work))
    assert timers[0].cancelled()


class SlowReader(Client):
    """Has got the whole answer on its way, and does not take it."""

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()


async def test_a_whole_answer_that_is_read_too_slowly_is_not_followed_by_an_error() -> None:
    stage = make_stage(request_seconds=0.05)
    stage.client = SlowReader()
    answer = stage.answer(lambda exchange: exchange.json({"a": 1}))
    async with asyncio.timeout(5):
        await stage.start(answer)
    assert answer.failures == []
    assert [message["type"] for message in stage.client.sent] == ["http.response.start", "http.response.body"]
    assert stage.aborts() == {"deadline": 1.0}
    assert not await stage.left_over()
