"""The figures of adapter_churn from what was recorded, and what it does beside its load."""

from __future__ import annotations

import asyncio
import math
import mmap
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from benchmarks.adapter_churn.plan import Plan
from benchmarks.adapter_churn.processes import Look, growth, own_bytes
from benchmarks.adapter_churn.report import Outcome, markdown
from benchmarks.adapter_churn.verbs import Churn
from benchmarks.load.client.record import Record
from benchmarks.load.verbs import Admin, Verb
from benchmarks.surroundings import Surroundings
from tests.serve.conftest import (  # noqa: F401 - fixtures
    RunningServer,
    clean_environment,
    make_settings,
    running_server,
)

HERE = Surroundings("a processor", "cpu", 2, 24.0, "Linux", "3.11", {}, "abc", 0.1)


def record(adapter: str, sent: float, ttft: float, *, code: str | None = None) -> Record:
    first = sent + ttft
    return Record(
        0,
        sent,
        sent,
        adapter,
        4,
        outcome="ok" if code is None else "error",
        code=code,
        event_seconds=[first, first + 0.3],
        done_seconds=first + 0.3,
        completion_tokens=4,
        version=f"{adapter}@1",
    )


def test_growth_is_told_from_noise() -> None:
    hours = [place / 60 for place in range(60)]
    seconds = [3600 * hour for hour in hours]
    wave = [math.sin(place / 3) for place in range(60)]
    flat = growth(seconds, [100 + one for one in wave])
    assert flat.told == "no growth shown"
    leak = growth(seconds, [100 + 50 * hour + one for hour, one in zip(hours, wave, strict=True)])
    assert leak.told == "grows"
    assert leak.low < 50 < leak.high
    with pytest.raises(ValueError, match="8 are needed"):
        growth(seconds[:3], wave[:3])


def test_pages_of_files_do_not_count(tmp_path: Path) -> None:
    size = 32 * 1024**2
    (tmp_path / "pages").write_bytes(bytes(size))
    before = own_bytes(psutil.Process())
    with (
        (tmp_path / "pages").open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages,
    ):
        assert sum(pages[place] for place in range(0, size, mmap.PAGESIZE)) == 0
        assert own_bytes(psutil.Process()) - before < size / 2
    held = bytearray(b"x" * size)
    assert own_bytes(psutil.Process()) - before > size / 2
    assert held


def test_the_churn_report_judges_the_listing() -> None:
    plan = Plan(
        registered=4,
        active=2,
        minutes=1,
        concurrency=2,
        churn_seconds=1,
        list_seconds=1,
        sample_seconds=1,
        max_tokens=4,
        prompt_words=4,
        rank=4,
    )
    assert plan.asked == ["adapter-0000", "adapter-0002"]
    looks = [
        Look(float(place), 100 + math.sin(place), 500.0 + place, 90.0 + 0.001 * place, 50, 40)
        for place in range(60)
    ]
    outcome = Outcome(
        [Verb(0, "load", 0.1)],
        [Verb(place, "list", 0.06) for place in range(10)]
        + [Verb(place, "replace", 0.5, "adapter-0000", "adapter-0000@1") for place in range(60)],
        looks,
        [record("adapter-0000", 1, 0.1), record("adapter-0002", 1, 0.2, code="engine_dead")],
    )
    assert outcome.errors == ["1 x error: engine_dead"]
    told = markdown(
        outcome, plan, engine="tiny", started=datetime.now(UTC), command="python", surroundings=HERE
    )
    assert "1 of 2 requests answered, by 1 adapters; TTFT p50 100 ms" in told
    assert "list in less than 50 ms: MISSED (p99 60.0 ms)" in told
    assert "memory of the gateway: no growth shown" in told
    # A MiB a second beside a version a second, of half a GiB: a thousand versions would take twice as much.
    assert "memory of the engine: grows, by 1024.0 KiB (1024.0 to 1024.0) for each new version" in told
    assert "at most 1 % for a thousand: MISSED (192.31 %); +3600.0 and +3600.0 MiB per hour" in told
    assert "memory of the helpers: grows, by 1.0 KiB" in told
    assert "at most 1 % for a thousand: MISSED (1.11 %)" in told


async def test_churn_leaves_nothing_but_what_it_has_loaded(
    running_server: Callable[..., Awaitable[RunningServer]],  # noqa: F811
) -> None:
    server = await running_server()
    plan = Plan(
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
    for seed, name in enumerate(plan.names):
        await server.gateway.adapters.load(name, server.make_adapter(name, seed=seed), actor="test")
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
