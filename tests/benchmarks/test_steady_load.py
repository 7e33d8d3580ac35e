"""A steady load against a running gateway, with swaps and churn beside it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp  # noqa: F401 - imported before the clock of a load runs

from benchmarks.adapter_churn.plan import Plan as ChurnPlan
from benchmarks.adapter_churn.verbs import Churn
from benchmarks.load.verbs import Admin
from benchmarks.steady.client import Order, run_order
from benchmarks.steady.record import Record, read_records, write_records
from serve.engine.scripted import Script
from tests.patience import patient
from tests.serve.conftest import (  # noqa: F401 - fixtures
    RunningServer,
    clean_environment,
    make_settings,
    running_server,
)

MakeServer = Callable[..., Awaitable[RunningServer]]


async def load(server: RunningServer, name: str, seed: int) -> None:
    source = server.make_adapter(f"{name}-{seed}", seed=seed)
    answer = await server.client.post("/admin/adapters", json={"name": name, "source": source})
    assert answer.status_code == 201, answer.text


def order_for(server: RunningServer, lanes: list[list[str | None]], seconds: float) -> Order:
    return Order(
        url=server.url,
        lanes=lanes,
        start_at_seconds=time.monotonic(),
        seconds=seconds,
        prompt_words=8,
        max_tokens=3,
        seed="1",
        request_timeout_seconds=10,
    )


async def test_lanes_ask_their_adapters_in_turn_and_all_answers_are_kept(running_server: MakeServer) -> None:  # noqa: F811
    server = await running_server(script=Script(tpot_seconds=0.002))
    for name in ("a", "b"):
        await load(server, name, seed=ord(name))
    records = await run_order(order_for(server, [["a", "b"], [None]], patient(1.5)))
    assert all(record.ok for record in records), records
    first = [record for record in records if record.lane == 0]
    assert len(first) > 1
    assert [record.adapter for record in first] == (["a", "b"] * len(first))[: len(first)]
    assert all(str(record.version).startswith(f"{record.adapter}@") for record in first)
    assert all(record.version is None for record in records if record.lane == 1)
    whole = [record for record in records if record.tokens == 3]
    assert whole
    assert all((r.ttft_seconds or 0) > 0 and r.tpot_seconds is not None for r in whole)


async def test_what_fails_is_a_record_with_its_reason(running_server: MakeServer) -> None:  # noqa: F811
    server = await running_server(script=Script(fail_after_tokens=1))
    records = await run_order(order_for(server, [["nobody"], [None]], 0.2))
    reasons = {record.lane: record.error for record in records if record.tokens != 1}
    assert "HTTP 404" in str(reasons[0])
    assert reasons[1] == "generation_failed"


async def test_churn_leaves_nothing_but_what_it_has_loaded(running_server: MakeServer) -> None:  # noqa: F811
    server = await running_server()
    plan = ChurnPlan(
        registered=2,
        active=2,
        minutes=1,
        concurrency=1,
        churn_seconds=1,
        list_seconds=1,
        sample_seconds=1,
        max_tokens=2,
        prompt_words=2,
        rank=4,
    )
    for number, name in enumerate(plan.names):
        await load(server, name, seed=number)
    spares = [server.make_adapter(f"spare-{seed}", seed=100 + seed) for seed in range(3)]
    admin = Admin(server.url, time.monotonic())
    churn = Churn(admin, plan, spares)

    def run() -> None:
        with admin:
            for _ in range(8):
                churn.act()
            admin.list()

    await asyncio.to_thread(run)
    assert [verb.error for verb in admin.done] == [None] * 10
    listed = (await server.client.get("/admin/adapters")).json()["adapters"]
    assert [adapter["name"] for adapter in listed if adapter["live"]] == plan.names


def test_records_survive_their_file(tmp_path: Path) -> None:
    records = [Record(0, None, 0.5), Record(1, "a", 1.0, "a@1", 1.1, 1.2, 1.3, 4, "broken")]
    write_records(tmp_path / "records.jsonl", records)
    assert read_records(tmp_path / "records.jsonl") == records
