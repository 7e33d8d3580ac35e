"""The gateway sees one engine, however many there were."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from serve.engine.protocol import AdapterHandle, Engine
from serve.engine.scripted import Script
from serve.engine.supervised.supervisor import EngineState
from serve.errors import EngineDeadError, EngineNotReadyError, LifecycleError
from tests.serve.engine.supervised.conftest import MakeFleet
from tests.serve.engine.supervised.fleet import RISK, request, rules, until, words


async def test_before_a_start_nothing_is_known(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    assert fleet.why_not() == "the engine is still starting"
    with pytest.raises(EngineNotReadyError):
        _ = fleet.engine.facts
    with pytest.raises(EngineNotReadyError):
        _ = fleet.engine.codec


async def test_while_nothing_happens_it_is_the_engine_itself(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    await fleet.start()
    assert await words(fleet.engine.generate(request(adapter=RISK))) == "risk@3f2a91c0 " * 3
    assert len(await fleet.engine.score([1], [2, 3], RISK)) == 2
    assert await fleet.engine.resident_adapters() == {1}
    await fleet.engine.unload_adapter(RISK)
    assert await fleet.engine.resident_adapters() == set()
    assert (fleet.state, fleet.why_not()) == (EngineState.READY, None)
    assert len(fleet.made) == 1


async def test_a_first_start_that_fails_is_told_and_not_repeated(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(Script(failing_starts=1))
    with pytest.raises(EngineDeadError, match="does not start"):
        await fleet.start()
    assert len(fleet.made) == 1


async def test_a_stream_that_has_begun_ends_with_the_death(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    await fleet.start()
    fleet.last.gate.clear()
    async with aclosing(fleet.engine.generate(request())) as outputs:
        await anext(outputs)
        fleet.last.die()
        with pytest.raises(EngineDeadError):
            await anext(outputs)
    await until(lambda: fleet.why_not() is None)
    assert len(fleet.made) == 2
    assert fleet.made[1].requests == []
    assert fleet.metric("retried_requests_total") == 0


@pytest.mark.parametrize("stream", [True, False])
async def test_what_had_sent_nothing_is_answered_by_the_next_engine(
    make_fleet: MakeFleet, stream: bool
) -> None:
    fleet = make_fleet(Script(ttft_seconds=60.0))
    await fleet.start()
    asked = asyncio.create_task(words(fleet.engine.generate(request(adapter=RISK, stream=stream))))
    await fleet.last.wait_active(1)
    fleet.script.ttft_seconds = 0.0
    fleet.last.die()
    assert await asked == "risk@3f2a91c0 " * 3
    assert [len(engine.requests) for engine in fleet.made] == [1, 1]
    assert fleet.metric("retried_requests_total") == 1
    assert fleet.metric("engine_restarts_total", cause="died") == 1
    assert fleet.metric("engine_restart_seconds_count") == 1
    assert fleet.readies == 1


async def test_a_second_death_is_told(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(Script(die_after_tokens=0, deaths=2))
    await fleet.start()
    with pytest.raises(EngineDeadError):
        await words(fleet.engine.generate(request()))
    assert [len(engine.requests) for engine in fleet.made] == [1, 1]
    assert await words(fleet.engine.generate(request())) == "base " * 3


async def test_an_engine_that_hangs_is_replaced_and_its_work_goes_on(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(given=rules(stall=0.05, hang=0.3))
    await fleet.start()
    fleet.last.hang()
    asked = asyncio.create_task(words(fleet.engine.generate(request())))
    await until(lambda: fleet.why_not() is not None)
    assert "no sign of life" in str(fleet.why_not())
    assert fleet.state is EngineState.READY  # still the same engine, which may go on
    assert await asked == "base " * 3
    assert len(fleet.made) == 2
    assert fleet.metric("engine_restarts_total", cause="hung") == 1


async def test_an_engine_that_goes_on_is_ready_by_itself(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(given=rules(stall=0.05))
    await fleet.start()
    fleet.last.hang()
    asked = asyncio.create_task(words(fleet.engine.generate(request())))
    await until(lambda: fleet.why_not() is not None)
    fleet.last.resume()
    assert await asked == "base " * 3
    await until(lambda: fleet.why_not() is None)
    assert len(fleet.made) == 1


async def test_who_waits_can_be_cancelled(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(Script(start_seconds=0.0, die_after_tokens=0, deaths=1))
    await fleet.start()
    fleet.script.start_seconds = 60.0
    asked = asyncio.create_task(words(fleet.engine.generate(request())))
    await until(lambda: fleet.state is EngineState.RESTARTING)
    assert not asked.done()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked


async def test_calls_of_the_gateway_do_not_wait_for_an_engine(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    await fleet.start()
    fleet.script.start_seconds = 60.0
    fleet.last.die()
    await until(lambda: fleet.state is EngineState.RESTARTING)
    with pytest.raises(EngineNotReadyError):
        await fleet.engine.load_adapter(RISK)
    with pytest.raises(EngineNotReadyError):
        await fleet.engine.score([1], [2], None)
    with pytest.raises(EngineNotReadyError):
        await words(fleet.engine.generate(request(urgent=True)))
    await fleet.engine.unload_adapter(RISK)  # gone with the engine that held it
    assert await fleet.engine.resident_adapters() == set()
    assert "started again" in str(fleet.why_not())
    assert "restart 1 of at most 5" in str(fleet.why_not())


async def test_a_call_that_the_engine_does_not_survive_ends(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(Script(load_seconds=0.0))
    await fleet.start()
    fleet.script.load_seconds = 60.0
    loading = asyncio.create_task(fleet.engine.load_adapter(replace(RISK, name="other@00000000")))
    await until(lambda: fleet.last.num_waiting == 1)
    fleet.script.load_seconds = 0.0
    fleet.last.die()
    with pytest.raises(EngineDeadError):
        await loading
    await until(lambda: fleet.why_not() is None)


async def test_only_who_restores_reaches_a_fresh_engine(make_fleet: MakeFleet) -> None:
    fleet, open_again = make_fleet(Script(die_after_tokens=0, deaths=1)), asyncio.Event()
    reached: list[object] = []

    async def restore(engine: Engine) -> None:
        await engine.load_adapter(RISK)
        reached.append(await engine.score([1], [2], RISK))
        reached.append(await words(engine.generate(request(2, urgent=True, adapter=RISK))))
        await open_again.wait()

    await fleet.start(restore)
    asked = asyncio.create_task(words(fleet.engine.generate(request())))
    await until(lambda: len(reached) == 2)
    assert fleet.state is EngineState.RESTORING
    assert "adapters back" in str(fleet.why_not())
    assert not asked.done()
    open_again.set()
    assert await asked == "base " * 3


async def test_a_restart_that_fails_counts_and_is_repeated(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    await fleet.start()
    fleet.script.failing_starts = 2
    fleet.last.die()
    await until(lambda: len(fleet.made) == 4 and fleet.why_not() is None)
    assert fleet.metric("engine_restarts_total", cause="died") == 1
    assert fleet.metric("engine_restarts_total", cause="start_failed") == 2


async def test_an_engine_that_dies_while_it_is_restored_is_replaced(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    rounds = []

    async def restore(engine: Engine) -> None:
        rounds.append(engine)
        if len(rounds) == 1:
            fleet.last.die()
        await engine.load_adapter(RISK)

    await fleet.start(restore)
    fleet.last.die()
    await until(lambda: len(rounds) == 2 and fleet.why_not() is None)
    assert len(fleet.made) == 3


async def test_adapters_that_cannot_be_brought_back_are_a_failed_start(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    rounds = []

    async def restore(engine: Engine) -> None:
        rounds.append(engine)
        if len(rounds) == 1:
            raise LifecycleError("the registry is gone")

    await fleet.start(restore)
    fleet.last.die()
    await until(lambda: len(rounds) == 2 and fleet.why_not() is None)
    assert fleet.metric("engine_restarts_total", cause="start_failed") == 1


async def test_a_crash_loop_ends(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(given=rules(restarts=3))
    await fleet.start()
    fleet.script.failing_starts = 100
    fleet.last.die()
    with pytest.raises(EngineDeadError, match="3 times within 600 s"):
        await words(fleet.engine.generate(request()))
    assert (len(fleet.made), fleet.losses, fleet.readies) == (4, 1, 0)
    assert "engine-max-restarts" in str(fleet.why_not())
    with pytest.raises(EngineDeadError):
        await fleet.engine.load_adapter(RISK)


async def test_without_restarts_the_first_death_is_the_end(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(given=rules(restarts=0))
    await fleet.start()
    fleet.last.die()
    await until(lambda: fleet.losses == 1)
    assert fleet.state is EngineState.LOST
    assert len(fleet.made) == 1


async def test_a_server_that_ends_starts_no_engine(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    await fleet.start()
    fleet.engine.finish()
    fleet.last.die()
    await until(lambda: fleet.state is EngineState.LOST)
    assert (len(fleet.made), fleet.losses) == (1, 0)


async def test_it_can_be_stopped_in_the_middle_of_a_start(make_fleet: MakeFleet) -> None:
    fleet = make_fleet()
    await fleet.start()
    fleet.script.start_seconds = 60.0
    fleet.last.die()
    await until(lambda: len(fleet.made) == 2)
    await fleet.engine.stop()
    assert fleet.state is EngineState.STOPPED
    with pytest.raises(EngineDeadError):
        await words(fleet.engine.generate(request()))
    await fleet.engine.stop()


async def test_a_version_keeps_its_name_whatever_its_new_id(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(Script(ttft_seconds=60.0))
    await fleet.start()
    asked = asyncio.create_task(words(fleet.engine.generate(request(adapter=RISK))))
    await fleet.last.wait_active(1)
    fleet.script.ttft_seconds = 0.0
    fleet.versions = [replace(RISK, engine_id=7)]
    fleet.last.die()
    assert await asked == "risk@3f2a91c0 " * 3
    assert fleet.last.requests[0].adapter == replace(RISK, engine_id=7)


async def test_a_version_that_only_waiting_requests_want_is_given_to_the_next_engine(
    make_fleet: MakeFleet,
) -> None:
    fleet = make_fleet(Script(ttft_seconds=60.0))
    await fleet.start()
    asked = asyncio.create_task(words(fleet.engine.generate(request(adapter=RISK))))
    await fleet.last.wait_active(1)
    fleet.script.ttft_seconds = 0.0
    fleet.versions = []  # its alias has left it
    fleet.last.die()
    assert await asked == "risk@3f2a91c0 " * 3
    assert fleet.last.adapters == {1: RISK}


async def test_a_version_that_failed_to_come_back_answers_nobody(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(Script(ttft_seconds=60.0))

    async def restore(engine: Engine) -> None:
        await engine.load_adapter(RISK)
        await engine.unload_adapter(RISK)  # its probe has found it wanting

    await fleet.start(restore)
    asked = asyncio.create_task(words(fleet.engine.generate(request(adapter=RISK))))
    await fleet.last.wait_active(1)
    fleet.script.ttft_seconds = 0.0
    fleet.last.die()
    with pytest.raises(EngineNotReadyError, match="did not come back"):
        await asked
    assert fleet.last.requests == []


async def test_an_adapter_that_was_never_loaded_is_left_to_the_engine(make_fleet: MakeFleet) -> None:
    lazy = AdapterHandle("lazy@00000000", 9, RISK.path)
    fleet = make_fleet(Script(die_after_tokens=0, deaths=1))
    await fleet.start()
    assert await words(fleet.engine.generate(request(adapter=lazy))) == "lazy@00000000 " * 3
    assert fleet.last.adapters == {1: RISK}
