"""The figures of a lost engine are counted as they are described."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest

from benchmarks.engine_kill.outcome import outcome_of
from benchmarks.engine_kill.plan import Plan
from benchmarks.engine_kill.readiness import Readiness
from benchmarks.engine_kill.report import markdown, verdicts
from benchmarks.engine_kill.trial import Trial
from benchmarks.errors import BenchmarkError, PlanError
from benchmarks.steady.record import Record
from benchmarks.surroundings import Surroundings
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


def record(sent: float, first: float | None, done: float | None, **fields: str) -> Record:
    made = Record(0, "a", sent, version="a@00000000", first_seconds=first, done_seconds=done)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


RECORDS = [
    record(1.0, 2.0, 3.0),  # over before
    record(9.0, 9.5, 10.1, error="engine_dead"),  # had begun: lost
    record(9.0, 9.5, 10.05),  # had begun and was complete all the same
    record(9.9, 25.0, 26.0),  # had sent nothing: retried
    record(9.9, None, 27.0, error="engine_dead"),  # had sent nothing: lost
    record(11.0, None, 11.01, error="HTTP 503: engine_not_ready"),  # sent away
    record(12.0, None, 12.5, error="HTTP 500: internal_error"),  # failed later
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


def test_every_lane_asks_everybody_in_turn() -> None:
    lanes = plan(concurrency=4).lanes
    assert lanes[0] == ["adapter-0", "adapter-1", None]
    assert lanes[1] == ["adapter-1", None, "adapter-0"]
    assert lanes[3] == lanes[0]


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
