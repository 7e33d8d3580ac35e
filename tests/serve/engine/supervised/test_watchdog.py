"""Death, silence and work are told apart."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest

from serve.engine.scripted import ScriptedEngine
from serve.engine.supervised import watchdog
from serve.engine.supervised.watchdog import Vitals, Watchdog, WatchRules
from tests.patience import patient
from tests.serve.engine.supervised.fleet import SOON_SECONDS, until

FAST = {"poll_seconds": 0.005, "beat_seconds": 0.01}


class InProcesses(ScriptedEngine):
    """A scripted engine that says which processes compute for it."""

    def __init__(self, process_ids: Sequence[int]) -> None:
        super().__init__()
        self._ids = process_ids

    @property
    def process_ids(self) -> Sequence[int]:
        return self._ids


@pytest.fixture
def spinner() -> Iterator[subprocess.Popen[bytes]]:
    """A process that computes all the time."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits all the time."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


async def test_a_death_ends_the_watch_with_the_reason() -> None:
    engine = ScriptedEngine()
    watch = asyncio.create_task(Watchdog(engine, WatchRules(**FAST)).run())
    await asyncio.sleep(0.03)
    assert not watch.done()
    engine.die()
    ending = await asyncio.wait_for(watch, SOON_SECONDS)
    assert (ending.cause, ending.reason) == ("died", "the scripted engine is dead")


async def test_whoever_is_told_of_a_death_may_raise_the_alarm() -> None:
    dog = Watchdog(ScriptedEngine(), WatchRules(poll_seconds=600.0))
    watch = asyncio.create_task(dog.run())
    await asyncio.sleep(0)
    dog.alarm()
    assert (await asyncio.wait_for(watch, SOON_SECONDS)).cause == "died"


async def test_silence_stalls_first_and_then_ends_the_watch() -> None:
    engine = ScriptedEngine()
    dog = Watchdog(engine, WatchRules(stall_seconds=0.05, hang_seconds=0.3, **FAST))
    watch = asyncio.create_task(dog.run())
    engine.hang()
    await until(lambda: dog.stalled)
    assert not watch.done()
    ending = await asyncio.wait_for(watch, SOON_SECONDS)
    assert ending.cause == "hung"
    assert "no sign of life" in ending.reason


async def test_an_engine_that_goes_on_is_as_it_was() -> None:
    engine = ScriptedEngine()
    dog = Watchdog(engine, WatchRules(stall_seconds=0.05, hang_seconds=60.0, **FAST))
    watch = asyncio.create_task(dog.run())
    engine.hang()
    await until(lambda: dog.stalled)
    engine.resume()
    await until(lambda: not dog.stalled)
    assert dog.silent_seconds < patient(0.05)
    assert not watch.done()
    watch.cancel()


async def test_outputs_are_signs_of_life_as_well() -> None:
    engine = ScriptedEngine()
    dog = Watchdog(engine, WatchRules(stall_seconds=0.05, hang_seconds=0.1, **FAST))
    watch = asyncio.create_task(dog.run())
    engine.hang()  # answers no heartbeat
    for _ in range(40):
        dog.hear()
        await asyncio.sleep(0.005)
        assert not dog.stalled
    assert not watch.done()
    watch.cancel()


async def test_an_engine_is_asked_only_when_it_has_said_nothing() -> None:
    class Asked(ScriptedEngine):
        times = 0

        async def heartbeat(self) -> None:
            self.times += 1
            await super().heartbeat()

    engine, now = Asked(), 0.0
    dog = Watchdog(engine, WatchRules(**FAST), clock=lambda: now)
    watch = asyncio.create_task(dog.run())
    await until(lambda: engine.times == 1)
    for _ in range(5):
        now += 0.02
        dog.hear()
        await asyncio.sleep(0.02)
    assert engine.times == 1
    now += 0.02
    await until(lambda: engine.times == 2)
    watch.cancel()


async def test_a_long_step_is_work_and_not_silence(
    spinner: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "_VITALS_SECONDS", 0.3)
    engine = InProcesses([spinner.pid])
    dog = Watchdog(engine, WatchRules(stall_seconds=0.7, hang_seconds=60.0, **FAST))
    watch = asyncio.create_task(dog.run())
    engine.hang()  # no heartbeat is answered inside of a step
    await until(lambda: dog.silent_seconds > 1.5)
    assert not dog.stalled
    assert not watch.done()
    spinner.kill()
    spinner.wait()
    await until(lambda: dog.stalled)
    watch.cancel()


async def test_work_without_end_is_given_up_too(
    spinner: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "_VITALS_SECONDS", 0.05)
    engine = InProcesses([spinner.pid])
    dog = Watchdog(engine, WatchRules(stall_seconds=0.1, hang_seconds=0.1, **FAST))
    engine.hang()
    ending = await asyncio.wait_for(dog.run(), SOON_SECONDS)
    assert ending.cause == "hung"
    assert dog.silent_seconds >= 0.1


async def test_a_task_that_it_was_given_is_work() -> None:
    engine = ScriptedEngine()
    dog = Watchdog(engine, WatchRules(stall_seconds=0.05, hang_seconds=0.1, **FAST))
    watch = asyncio.create_task(dog.run())
    engine.hang()
    with dog.task():
        await until(lambda: dog.silent_seconds > 0.3)
        assert not dog.stalled
        assert not watch.done()
    assert (await asyncio.wait_for(watch, SOON_SECONDS)).cause == "hung"


async def test_a_stopped_process_is_not_waited_for(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "STOPPED_SECONDS", 0.05)
    engine = InProcesses([sleeper.pid])
    dog = Watchdog(engine, WatchRules(stall_seconds=60.0, hang_seconds=120.0, **FAST))
    watch = asyncio.create_task(dog.run())
    engine.hang()
    os.kill(sleeper.pid, signal.SIGSTOP)
    await until(lambda: dog.stalled)
    os.kill(sleeper.pid, signal.SIGCONT)
    engine.resume()
    await until(lambda: not dog.stalled)
    watch.cancel()


async def test_time_in_which_nobody_watched_is_not_held_against_the_engine() -> None:
    now = 0.0
    engine = ScriptedEngine()
    dog = Watchdog(engine, WatchRules(stall_seconds=5.0, hang_seconds=10.0, **FAST), clock=lambda: now)
    watch = asyncio.create_task(dog.run())
    engine.hang()
    await asyncio.sleep(0.02)
    now += 3600.0
    await asyncio.sleep(0.02)
    assert dog.silent_seconds <= 0.011
    assert not watch.done()
    watch.cancel()


def test_processes_that_are_gone_neither_compute_nor_stand(sleeper: subprocess.Popen[bytes]) -> None:
    vitals = Vitals([sleeper.pid, 2**22 + 1])
    assert not vitals.stopped
    sleeper.kill()
    sleeper.wait()
    assert not vitals.stopped
    assert not vitals.working
