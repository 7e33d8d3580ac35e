"""The figures of a lost engine are counted as they are described."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from benchmarks.engine_kill.outcome import outcome_of
from benchmarks.engine_kill.plan import Plan
from benchmarks.engine_kill.readiness import Readiness
from benchmarks.engine_kill.report import markdown, verdicts
from benchmarks.engine_kill.strike import Strike
from benchmarks.engine_kill.trial import Trial, run_trial
from benchmarks.errors import BenchmarkError, PlanError
from benchmarks.load.client.record import Record, read_records
from benchmarks.load.errors import GeneratorFailedError
from benchmarks.server import Server, ServerSpec
from benchmarks.surroundings import Surroundings
from serve.engine.scripted import Script
from tests.serve.conftest import (  # noqa: F401 - fixtures
    RunningServer,
    clean_environment,
    make_settings,
    running_server,
)

LIVE = {"a": "a@00000000", "b": "b@00000000"}


def plan(**fields: float) -> Plan:
    given = {
        "kills": 1,
        "stop_seconds": 60.0,
        "adapters": 2,
        "concurrency": 4,
        "before_seconds": 10.0,
        "after_seconds": 60.0,
        "max_tokens": 8,
        "prompt_words": 8,
        "rank": 4,
    }
    return Plan(**{**given, **fields})  # type: ignore[arg-type]


def record(sent: float, first: float | None, done: float | None, **fields: object) -> Record:
    made = Record(0, sent, sent, "a", 4, outcome="ok", status=200, version="a@00000000", done_seconds=done)
    made.event_seconds = [first] if first is not None else []
    for name, value in fields.items():
        setattr(made, name, value)
    return made


RECORDS = [
    record(1.0, 2.0, 3.0),  # over before
    record(9.0, 9.5, 10.1, outcome="error", code="engine_dead"),  # had begun: lost
    record(9.0, 9.5, 10.05),  # had begun and was complete all the same
    record(9.9, 25.0, 26.0),  # had sent nothing: retried
    record(9.9, None, 27.0, outcome="error", code="engine_dead"),  # had sent nothing: lost
    record(11.0, None, 11.01, outcome="rejected", status=503),  # sent away
    record(12.0, None, 12.5, outcome="error", status=500),  # failed later
    record(30.0, 30.1, 30.2, version="a@11111111"),  # another version
    record(40.0, 40.1, 40.2, adapter="b", version="b@00000000"),
]


def test_requests_are_sorted_by_where_they_were() -> None:
    outcome = outcome_of(RECORDS, LIVE, struck_seconds=10.0)
    assert (outcome.in_flight, outcome.begun, outcome.waiting) == (4, 2, 2)
    assert (outcome.begun_lost, outcome.waiting_lost, outcome.later_lost) == (1, 1, 1)
    assert (outcome.refused, outcome.wrong, outcome.answered, outcome.lost) == (1, 1, 5, 3)


def trial(what: str, *, records: list[Record], **fields: object) -> Trial:
    given = {
        "what": what,
        "off_seconds": 0.5,
        "why": "no sign of life",
        "ready_seconds": 20.0,
        "retried": 1,
        "same_versions": True,
        "same_answers": True,
        "same_process": what == "SIGSTOP",
        "outcome": outcome_of(records, LIVE, struck_seconds=10.0),
    }
    return Trial(**{**given, **fields})  # type: ignore[arg-type]


def test_a_promise_that_is_not_kept_is_said_so() -> None:
    good = trial("kill -9", records=RECORDS[:4])
    stop = trial("SIGSTOP", records=RECORDS[:1])
    assert not [line for line in verdicts([good, stop], plan(), stall_seconds=15.0) if "not met" in line]
    for bad, words in (
        (trial("kill -9", records=RECORDS[:4], off_seconds=2.5), "within 2 s"),
        (trial("kill -9", records=RECORDS[:5]), "had begun"),
        (trial("kill -9", records=RECORDS[:4], same_answers=False), "same answers"),
        (trial("kill -9", records=RECORDS[7:8]), "same versions"),
        (trial("SIGSTOP", records=RECORDS[:1], off_seconds=16.0), "15 s set"),
        (trial("SIGSTOP", records=RECORDS[:1], same_process=False), "by itself"),
    ):
        (line,) = [line for line in verdicts([bad], plan(), stall_seconds=15.0) if "not met" in line]
        assert words in line


def test_the_entry_has_a_row_for_each_trial() -> None:
    around = Surroundings("cpu", "cpu", 2, 24.0, "Linux", "3.11", {}, None, 0.1)
    trials = [trial("kill -9", records=RECORDS[:4]), trial("SIGSTOP", records=RECORDS[:1])]
    entry = markdown(
        trials, plan(), started=datetime.now(UTC), command="x", surroundings=around, stall_seconds=15.0
    )
    assert "| 1: kill -9 | 0.50 s | 20.0 s | 3 | 2: 1 | 1: 0 | 1 | 0 | 0 | 0 | 3 |" in entry
    assert "| 2: SIGSTOP |" in entry


def test_all_adapters_and_the_base_are_asked() -> None:
    assert plan(adapters=2).asked == ["adapter-0", "adapter-1", None]


@pytest.mark.parametrize("fields", [{"kills": 0, "stop_seconds": 0.0}, {"adapters": 0}, {"max_tokens": 1}])
def test_what_cannot_be_measured_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(PlanError):
        plan(**fields).check()


async def test_readiness_is_seen_to_go_off_and_on(
    running_server: Callable[..., Awaitable[RunningServer]],  # noqa: F811
) -> None:
    server = await running_server()
    server.engine.script.start_seconds = 0.3

    def watch() -> tuple[float, float, str]:
        with Readiness(server.url) as readiness:
            readiness.wait(True, after_seconds=0.0, limit_seconds=10.0)
            struck = time.monotonic()
            loop.call_soon_threadsafe(server.engine.die)
            off, why = readiness.wait(False, after_seconds=struck, limit_seconds=10.0)
            ready, _ = readiness.wait(True, after_seconds=off, limit_seconds=10.0)
            with pytest.raises(BenchmarkError, match="not ready within"):
                readiness.wait(False, after_seconds=ready, limit_seconds=0.05)
        return off - struck, ready - struck, why

    loop = asyncio.get_running_loop()
    off, ready, why = await asyncio.to_thread(watch)
    assert 0 < off < ready
    assert ready >= 0.3
    assert "engine" in why


@pytest.fixture
def core() -> Iterator[subprocess.Popen[bytes]]:
    """A process to be struck."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


async def test_the_process_is_killed_beside_the_load_and_readiness_is_followed(
    running_server: Callable[..., Awaitable[RunningServer]],  # noqa: F811
    core: subprocess.Popen[bytes],
) -> None:
    server = await running_server()
    server.engine.script.start_seconds = 0.3
    strike = Strike(psutil.Process(core.pid), server.url, plan(before_seconds=0.2), stop_seconds=0.0)

    def run() -> None:
        with strike.running(time.monotonic()):
            assert core.wait(30) == -signal.SIGKILL
            loop.call_soon_threadsafe(server.engine.die)

    loop = asyncio.get_running_loop()
    await asyncio.to_thread(run)
    assert strike.result.struck_seconds >= 0.2
    assert 0 < strike.result.off_seconds < strike.result.ready_seconds
    assert "engine" in strike.result.why


async def test_a_load_that_fails_ends_the_wait_for_the_engine(
    running_server: Callable[..., Awaitable[RunningServer]],  # noqa: F811
    core: subprocess.Popen[bytes],
) -> None:
    server = await running_server()
    strike = Strike(psutil.Process(core.pid), server.url, plan(before_seconds=600.0), stop_seconds=0.0)

    def run() -> None:
        with strike.running(time.monotonic()):
            raise GeneratorFailedError("the load failed")

    with pytest.raises(GeneratorFailedError):
        await asyncio.to_thread(run)
    assert core.poll() is None
    with pytest.raises(BenchmarkError, match="not struck"):
        _ = strike.result


async def test_a_trial_counts_what_became_of_its_requests(
    running_server: Callable[..., Awaitable[RunningServer]],  # noqa: F811
    core: subprocess.Popen[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The engine of the scripted gateway dies with a process that stands for it."""
    server = await running_server(script=Script(tpot_seconds=0.01))
    server.engine.script.start_seconds = 0.3
    for seed, name in enumerate(plan().names):
        await server.gateway.adapters.load(name, server.make_adapter(name, seed=seed), actor="test")
    process = psutil.Process(core.pid)
    monkeypatch.setattr("benchmarks.engine_kill.trial.engine_core", lambda _: process)
    spec = ServerSpec("gateway", "the gateway", "scripted", "/readyz", url=server.url)
    wanted = plan(before_seconds=1.0, after_seconds=2.0)

    def run() -> Trial:
        with ThreadPoolExecutor(1) as beside:
            beside.submit(core.wait).add_done_callback(lambda _: loop.call_soon_threadsafe(server.engine.die))
            return run_trial(Server(spec, server.url, None), wanted, tmp_path, name="kill-0")

    loop = asyncio.get_running_loop()
    found = await asyncio.to_thread(run)
    assert (found.what, found.same_versions, found.same_answers) == ("kill -9", True, True)
    assert found.outcome.answered > 0
    assert found.outcome.wrong == found.outcome.later_lost == 0
    kept = read_records(tmp_path / "requests-kill-0.jsonl")
    assert {record.adapter for record in kept if record.ok} == {"adapter-0", "adapter-1", None}
    assert sum(record.ok for record in kept) == found.outcome.answered
