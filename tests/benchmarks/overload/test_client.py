"""The load client against a gateway that can do less than is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from benchmarks.overload.client import Order, run_order
from serve.engine.scripted import Script
from tests.serve.conftest import (  # noqa: F401 - fixtures
    RunningServer,
    clean_environment,
    make_settings,
    running_server,
)

MakeServer = Callable[..., Awaitable[RunningServer]]


def order_for(url: str, *, rate: float = 0.0, workers: int = 0, seconds: float = 1.0) -> Order:
    return Order(url, seconds, rate, workers, 8, 4, "seed", 10.0)


async def test_an_open_loop_sends_on_whatever_becomes_of_the_others(running_server: MakeServer) -> None:  # noqa: F811
    server = await running_server(script=Script(ttft_seconds=0.2), max_num_seqs=1, max_queued_requests=2)
    order = order_for(server.url, rate=40.0)
    records = await run_order(order)
    assert len(records) == len(order.due_times())
    answered = [record for record in records if record.answered]
    refused = [record for record in records if record.refused]
    assert len(answered) + len(refused) == len(records)
    assert answered
    assert refused
    assert all(record.tokens == 4 and (record.ttft_seconds or 0) >= 0.2 for record in answered)
    assert all((record.retry_after_seconds or 0) >= 1 for record in refused)


async def test_a_closed_loop_has_so_many_under_way(running_server: MakeServer) -> None:  # noqa: F811
    server = await running_server(script=Script(ttft_seconds=0.05))
    records = await run_order(order_for(server.url, workers=3, seconds=0.5))
    assert len(records) > 6
    events = sorted(
        [(record.sent_seconds, 1) for record in records]
        + [(record.done_seconds or 0, -1) for record in records]
    )
    under_way = most = 0
    for _, step in events:
        under_way += step
        most = max(most, under_way)
    assert most == 3
    assert max(record.tokens or 0 for record in records if record.answered) == 4


async def test_a_server_that_is_not_there_is_an_error_of_each_request() -> None:
    probe = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = probe.sockets[0].getsockname()[1]
    probe.close()
    await probe.wait_closed()
    records = await run_order(order_for(f"http://127.0.0.1:{port}", rate=20.0, seconds=0.3))
    assert records
    assert all(record.error is not None and not record.refused for record in records)
