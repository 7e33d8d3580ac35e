"""The stand-in engine does what its script says, so that tests built on it mean something."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from serve.engine.protocol import AdapterHandle, EngineRequest, Sampling
from serve.engine.scripted import Script, ScriptedEngine
from serve.errors import EngineDeadError, GenerationFailedError, LifecycleError, UnloadFailedError

HANDLE = AdapterHandle("risk@3f2a91c0", 1, Path("risk"))


def request(**fields: object) -> EngineRequest:
    return EngineRequest("req", [1, 2], Sampling(max_tokens=3, logprobs=1), **fields)  # type: ignore[arg-type]


async def texts(engine: ScriptedEngine, asked: EngineRequest) -> list[str]:
    return [delta.text async for output in engine.generate(asked) for delta in output.deltas]


async def test_an_answer_names_its_speaker() -> None:
    engine = ScriptedEngine()
    assert await texts(engine, request()) == ["base "] * 3
    assert await texts(engine, request(adapter=HANDLE)) == ["risk@3f2a91c0 "] * 3
    assert await texts(engine, request(stream=False)) == ["base base base "]
    assert engine.active == set()
    assert engine.aborted == []
    assert len(engine.requests) == 3


async def test_closing_an_answer_aborts_it() -> None:
    engine = ScriptedEngine()
    async with aclosing(engine.generate(request())) as outputs:
        async for _ in outputs:
            assert engine.active == {"req"}
            break
    assert engine.active == set()
    assert engine.aborted == ["req"]


async def test_the_gate_holds_answers_after_their_first_token() -> None:
    engine = ScriptedEngine()
    engine.gate.clear()
    outputs = engine.generate(request())
    await anext(outputs)
    second = asyncio.ensure_future(anext(outputs))
    await engine.wait_active(1)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not second.done()
    engine.gate.set()
    await second
    await outputs.aclose()
    await engine.wait_gone()


async def test_faults_come_as_written() -> None:
    engine = ScriptedEngine(Script(fail_after_tokens=1))
    with pytest.raises(GenerationFailedError):
        await texts(engine, request())
    await engine.check_health()
    engine.script = Script(die_after_tokens=1)
    with pytest.raises(EngineDeadError):
        await texts(engine, request())
    with pytest.raises(EngineDeadError):
        await engine.check_health()
    with pytest.raises(EngineDeadError):
        await texts(engine, request())
    engine.script = Script()
    await engine.start()
    assert await texts(engine, request()) == ["base "] * 3


async def test_adapters_come_and_go() -> None:
    engine = ScriptedEngine()
    await engine.load_adapter(HANDLE)
    assert await engine.resident_adapters() == {1}
    engine.script = Script(keeps_unloaded=True, load_error="full")
    with pytest.raises(UnloadFailedError):
        await engine.unload_adapter(HANDLE)
    with pytest.raises(LifecycleError, match="full"):
        await engine.load_adapter(HANDLE)
    engine.script = Script()
    await engine.unload_adapter(HANDLE)
    await engine.unload_adapter(HANDLE)
    assert await engine.resident_adapters() == set()


async def test_logprobs_tell_adapters_apart_unless_they_have_no_effect() -> None:
    async def first_logprob(engine: ScriptedEngine, adapter: AdapterHandle | None) -> float:
        async for output in engine.generate(request(adapter=adapter)):
            return output.deltas[0].logprobs[0].logprob
        raise AssertionError("no token came")

    engine = ScriptedEngine()
    assert await first_logprob(engine, HANDLE) != await first_logprob(engine, None)
    assert await first_logprob(engine, HANDLE) == await first_logprob(engine, HANDLE)
    engine.script.no_effect = True
    assert await first_logprob(engine, HANDLE) == await first_logprob(engine, None)


async def test_its_death_ends_whatever_waits_inside_and_it_can_be_started_again() -> None:
    engine = ScriptedEngine(Script(ttft_seconds=60.0))
    await engine.load_adapter(HANDLE)
    asked = asyncio.create_task(texts(engine, request()))
    engine.hang()
    scored = asyncio.create_task(engine.score([1], [2], None))
    await engine.wait_active(1)
    engine.die()
    engine.script.ttft_seconds = 0.0
    await engine.start()  # before anybody has run again
    for task in (asked, scored):
        with pytest.raises(EngineDeadError):
            await task
    assert engine.adapters == {}
    assert await texts(engine, request()) == ["base "] * 3


async def test_while_it_hangs_nothing_is_answered() -> None:
    engine = ScriptedEngine()
    engine.hang()
    work = [
        asyncio.create_task(texts(engine, request())),
        asyncio.create_task(engine.heartbeat()),
        asyncio.create_task(engine.load_adapter(HANDLE)),
    ]
    done, _ = await asyncio.wait(work, timeout=0.02)
    assert done == set()
    await engine.check_health()  # it is not dead
    engine.resume()
    await asyncio.gather(*work)


async def test_it_hangs_for_as_long_as_its_script_says() -> None:
    engine = ScriptedEngine(Script(hang_after_tokens=1, hang_seconds=0.02))
    assert await texts(engine, request()) == ["base "] * 3
    assert engine.script.hang_after_tokens is None


async def test_engines_of_one_script_share_its_faults() -> None:
    script = Script(die_after_tokens=1, deaths=1, failing_starts=1)
    with pytest.raises(EngineDeadError, match="does not start"):
        await ScriptedEngine(script).start()
    first, second = ScriptedEngine(script), ScriptedEngine(script)
    await first.start()
    with pytest.raises(EngineDeadError):
        await texts(first, request())
    await second.start()
    assert await texts(second, request()) == ["base "] * 3
