"""A schedule is sent to a server whose answers are known, by a process of its own."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.load.client.line import Line
from benchmarks.load.client.order import Order
from benchmarks.load.client.record import Record
from benchmarks.load.client.sending import RunPlan, Sent, send
from benchmarks.load.client.target import Target, read_target
from benchmarks.load.verbs import Verb
from benchmarks.load.workload.prompt_source import PromptSource
from benchmarks.load.workload.schedule import Schedule, in_turn
from serve.engine.scripted import Script
from tests.patience import patient
from tests.serve.conftest import (  # noqa: F401 - fixtures
    RunningServer,
    clean_environment,
    make_settings,
    running_server,
)

MakeServer = Callable[..., Awaitable[RunningServer]]
PROMPTS = PromptSource(seed=1)
# Windows in requests, which hold whatever the pace of the machine.
PLAN = RunPlan(warmup_seconds=0.0, seconds=patient(30.0), timeout_seconds=patient(10.0), requests=1)


async def load(server: RunningServer, name: str, seed: int) -> None:
    source = server.make_adapter(f"{name}-{seed}", seed=seed)
    answer = await server.client.post("/admin/adapters", json={"name": name, "source": source})
    assert answer.status_code == 201, answer.text


def asking(who: Sequence[str | None], *, workers: int, max_tokens: int = 3) -> Schedule:
    return in_turn(who, workers=workers, prompt_tokens=8, max_tokens=max_tokens, seed=1)


async def sent_to(server: RunningServer, schedule: Schedule, plan: RunPlan) -> Sent:
    target = await asyncio.to_thread(read_target, server.url, "generate", adapters=())
    return await asyncio.to_thread(send, target, schedule, PROMPTS, plan)


async def test_everybody_is_asked_in_turn_and_every_request_is_kept(running_server: MakeServer) -> None:  # noqa: F811
    server = await running_server(script=Script(tpot_seconds=0.002))
    for name in ("a", "b"):
        await load(server, name, seed=ord(name))
    sent = await sent_to(server, asking(["a", "b", None], workers=2), replace(PLAN, requests=9))
    records = sorted(
        (record for record in sent.records if record.outcome != "unfinished"), key=lambda one: one.number
    )
    assert all(record.ok for record in records), records
    assert len(records) >= 9
    assert [record.number for record in records] == list(range(len(records)))
    assert [record.adapter for record in records] == (["a", "b", None] * len(records))[: len(records)]
    assert all(str(record.version).startswith(f"{record.adapter}@") for record in records if record.adapter)
    assert all(record.version is None for record in records if record.adapter is None)
    assert all((r.ttft_seconds or 0) > 0 and r.tpot_seconds is not None for r in records)


async def test_what_fails_is_kept_with_its_reason_and_not_hammered(running_server: MakeServer) -> None:  # noqa: F811
    server = await running_server(script=Script(fail_after_tokens=1))
    await load(server, "a", seed=1)
    plan = replace(PLAN, requests=4, refused_seconds=0.1)
    sent = await sent_to(server, asking(["nobody", "a"], workers=1), plan)
    ended = [record for record in sent.records if record.outcome != "unfinished"]
    assert {(r.adapter, r.status, r.failure) for r in ended} == {
        ("nobody", 404, "error: model_not_found"),
        ("a", 200, "error: generation_failed"),
    }
    for before, after in itertools.pairwise(ended):
        assert after.sent_seconds >= (before.done_seconds or 0.0) + 0.1


async def test_a_window_of_requests_begins_and_ends_under_full_load(running_server: MakeServer) -> None:  # noqa: F811
    server = await running_server(script=Script(ttft_seconds=0.01, tpot_seconds=0.005))
    plan = replace(PLAN, requests=7, out_of_step=True)
    sent = await sent_to(server, asking([None], workers=3, max_tokens=5), plan)
    by_number = {record.number: record for record in sent.records}
    first = [by_number[number] for number in range(3)]
    assert sorted(record.completion_tokens or 0 for record in first) == [2, 3, 5]
    assert sent.window.start >= max(record.done_seconds or 0.0 for record in first)
    measured = [record for record in sent.records if sent.window.holds(record.scheduled_seconds)]
    assert len(measured) == 7
    assert all(record.ok and len(record.event_seconds) == 5 for record in measured)
    assert sent.window.end in [record.scheduled_seconds for record in sent.records]
    # Until the last measured answer ended, no worker stood idle: each that ended one has sent another one.
    end = max(record.done_seconds or 0.0 for record in measured)
    assert sum(record.done_seconds is None or record.done_seconds >= end for record in sent.records) >= 3


async def test_what_goes_on_beside_begins_and_ends_with_the_load(running_server: MakeServer) -> None:  # noqa: F811
    server = await running_server()
    moments: list[float] = []

    @contextmanager
    def beside(start_at: float) -> Iterator[list[Verb]]:
        moments.extend((start_at, time.monotonic()))
        yield [Verb(0.0, "list", 0.1)]
        moments.append(time.monotonic())

    target = await asyncio.to_thread(read_target, server.url, "generate", adapters=())
    schedule = asking([None], workers=1)
    sent = await asyncio.to_thread(send, target, schedule, PROMPTS, PLAN, beside=beside)
    start_at, entered, left = moments
    assert entered <= start_at
    assert left - start_at >= max(record.done_seconds or 0.0 for record in sent.records)
    assert [verb.kind for verb in sent.verbs] == ["list"]


def order_for(schedule: Schedule, **changes: Any) -> Order:
    order = Order(
        url="http://127.0.0.1:1",
        dialect="generate",
        stream=True,
        model="m",
        schedule=schedule,
        prompts=PROMPTS,
        measure_from_seconds=0.0,
        measure_to_seconds=60.0,
        timeout_seconds=1.0,
        max_in_flight=1,
        records_path=Path("nowhere"),
    )
    return replace(order, **changes)


def test_a_closed_loop_that_begins_again_sends_other_texts() -> None:
    schedule = replace(asking(["a", None], workers=2), arrivals=asking(["a", None], workers=2).arrivals[:6])
    line = Line(order_for(schedule), time.monotonic())
    taken = [arrival for _ in range(18) if (arrival := line.take()) is not None]
    assert [arrival.adapter for arrival in taken] == ["a", None] * 9
    assert len({PROMPTS.prompt(arrival.number, 8) for arrival in taken}) == 18


def test_first_answers_are_of_different_lengths_once_where_that_is_asked_for() -> None:
    schedule = replace(
        asking([None], workers=4, max_tokens=9),
        arrivals=asking([None], workers=4, max_tokens=9).arrivals[:6],
    )
    for wanted, expected in ((True, [3, 5, 7, 9]), (False, [9] * 4)):
        line = Line(order_for(schedule, out_of_step=wanted), time.monotonic())
        taken = [arrival.max_tokens for _ in range(12) if (arrival := line.take()) is not None]
        assert taken == expected + [9] * 8


def delta(text: str) -> bytes:
    return f'event: delta\ndata: {{"text": "{text}"}}\n\n'.encode()


def done(adapter: str | None, tokens: int) -> bytes:
    fields = {"adapter": adapter, "usage": {"prompt_tokens": 8, "completion_tokens": tokens}}
    return b"event: done\ndata: " + json.dumps(fields).encode() + b"\n\n"


Answer = Sequence[bytes | float]


@contextmanager
def answering(answers: Sequence[Answer], written: list[float] | None = None) -> Iterator[Target]:
    """A server that gives one answer after the other, the last one again and again; a number is a pause in seconds.

    `written` gets the moment before each piece was written, by `time.monotonic`.
    """
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            for piece in left.pop(0) if len(left) > 1 else left[0]:
                if isinstance(piece, float):
                    time.sleep(piece)
                    continue
                if written is not None:
                    written.append(time.monotonic())
                self.wfile.write(piece)
                self.wfile.flush()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Target(f"http://127.0.0.1:{server.server_port}", "generate", "base", (), 4096, 0)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def records_of(answers: Sequence[Answer]) -> list[Record]:
    """What a client that asks for two tokens of the adapter `a` makes of each answer."""
    with answering([*answers, [delta("x"), delta("y"), done("a@1", 2)]]) as target:
        plan = replace(PLAN, keep_alive=False, requests=len(answers))
        sent = send(target, asking(["a"], workers=1, max_tokens=2), PROMPTS, plan)
    return sorted(sent.records, key=lambda record: record.number)[: len(answers)]


def test_an_answer_of_another_adapter_is_a_failure() -> None:
    """A server that does not say who answered cannot be found out."""
    speakers = ["a@11111111", "b@11111111", "a", None]
    records = records_of([[delta("x"), delta("y"), done(name, 2)] for name in speakers])
    assert [record.outcome for record in records] == ["ok", "wrong_adapter", "ok", "ok"]


def test_what_is_no_whole_answer_is_none() -> None:
    answers: list[tuple[Answer, str]] = [
        ([delta("x"), done("a@1", 1)], "wrong_length"),
        ([delta("x"), delta("y")], "cut"),
        ([delta("x"), b'event: error\ndata: {"error": {"code": "engine_dead"}}\n\n'], "error"),
        ([delta("x"), b"data: {not JSON\n\n"], "cut"),
        ([], "cut"),
    ]
    records = records_of([answer for answer, _ in answers])
    assert [record.outcome for record in records] == [outcome for _, outcome in answers]


def test_lines_may_end_in_either_way() -> None:
    named = b"".join([delta("x"), delta("y"), done("a@1", 2)])
    greeted, bare = b": hello\n\n" + named, named.replace(b"event: delta\n", b"")
    answers = [named, greeted, bare]
    for record in records_of(
        [[one] for one in (*answers, *(one.replace(b"\n", b"\r\n") for one in answers))]
    ):
        assert (record.outcome, len(record.event_seconds)) == ("ok", 2)


def test_an_event_has_the_time_of_its_last_byte() -> None:
    whole = delta("x")
    pieces: Answer = [whole[:12], 0.2, whole[12:] + delta("y"), 0.2, done("a@1", 2)]
    started: list[float] = []
    written: list[float] = []

    @contextmanager
    def beside(start_at: float) -> Iterator[tuple[()]]:
        started.append(start_at)
        yield ()

    with answering([pieces], written) as target:
        plan = replace(PLAN, keep_alive=False)
        schedule = asking(["a"], workers=1, max_tokens=2)
        record = send(target, schedule, PROMPTS, plan, beside=beside).records[0]
    begun, completed, ended = (moment - started[0] for moment in written[:3])
    assert record.ok
    # One clock for both sides: an event cannot have come before the server wrote its end.
    assert begun < completed <= record.event_seconds[0] <= record.event_seconds[1]
    assert ended <= (record.done_seconds or 0.0)
