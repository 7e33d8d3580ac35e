"""Rows 14 and 15: loads, unloads and replacements that race with each other and with requests."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import httpx

from serve.engine.scripted import Script
from tests.patience import patient
from tests.serve.asgi_call import events_of
from tests.serve.conftest import RunningServer
from tests.serve.faults.client import holds_nothing, refusal, until


async def load(server: RunningServer, name: str, source: str) -> httpx.Response:
    return await server.client.post("/admin/adapters", json={"name": name, "source": source})


async def test_b5_14_one_version_loaded_five_times_at_once_is_loaded_once(running_server):
    server = await running_server(script=Script(load_seconds=0.05))
    source = server.make_adapter("risk")
    answers = await asyncio.gather(*(load(server, "risk", source) for _ in range(5)))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 200: 4}
    assert len({answer.json()["adapter"]["live"] for answer in answers}) == 1
    assert len(server.engine.adapters) == 1


async def test_b5_14_loads_replacements_and_unloads_in_a_race_never_mix_versions(running_server):
    server = await running_server(script=Script(load_seconds=0.01, tpot_seconds=0.001))
    sources = [server.make_adapter(f"risk-{seed}", seed=seed) for seed in range(3)]
    versions = {(await load(server, "risk", source)).json()["adapter"]["live"] for source in sources}
    assert len(versions) == 3
    stop = asyncio.Event()
    spoken: Counter[str] = Counter()

    async def ask() -> None:
        while not stop.is_set():
            answer = await server.client.post(
                "/generate", json={"prompt": "a", "adapter": "risk", "max_tokens": 10}
            )
            if answer.status_code == 404:  # between an unload and the next load
                assert refusal(answer)["code"] == "model_not_found"
                spoken["404"] += 1
                continue
            assert answer.status_code == 200, answer.text
            words = answer.json()["text"].split()
            assert words == [answer.json()["adapter"]] * 10
            spoken[words[0]] += 1

    async def change(turn: int) -> None:
        for step in range(6):
            if (turn + step) % 4 == 3:
                answer = await server.client.delete("/admin/adapters/risk")
                assert answer.status_code in (200, 404), answer.text
            else:
                answer = await load(server, "risk", sources[(turn + step) % 3])
                assert answer.status_code in (200, 201, 409), answer.text
            if answer.status_code >= 400:
                refusal(answer)

    async with asyncio.timeout(patient(30)):
        askers = [asyncio.create_task(ask()) for _ in range(4)]
        await asyncio.gather(*(change(turn) for turn in range(4)))
        final = await load(server, "risk", sources[0])
        assert final.status_code in (200, 201)
        stop.set()
        await asyncio.gather(*askers)
    assert set(spoken) <= {*versions, "404"}
    assert len(set(spoken) & versions) >= 2  # the race was one
    await until(lambda: len(server.engine.adapters) == 1, "the engine holds the live version alone")
    [handle] = server.engine.adapters.values()
    assert handle.name == final.json()["adapter"]["live"]
    assert holds_nothing(server)


async def test_b5_14_beyond_the_engines_slots_every_adapter_still_answers_with_its_own_name(running_server):
    """The gateway refuses none: the engine keeps the most recent and reads the others again."""
    server = await running_server(max_loras=1, max_cpu_loras=1)
    for seed in range(3):
        loaded = await load(server, f"a{seed}", server.make_adapter(f"a{seed}", seed=seed))
        assert loaded.status_code == 201
    for seed in range(3):
        answer = await server.client.post("/generate", json={"prompt": "a", "adapter": f"a{seed}"})
        assert set(answer.json()["text"].split()) == {answer.json()["adapter"]}
        assert answer.json()["adapter"].startswith(f"a{seed}@")


async def test_b5_14_a_load_that_the_engine_refuses_leaves_the_old_version_serving(running_server):
    server = await running_server()
    first = (await load(server, "risk", server.make_adapter("v1", seed=1))).json()["adapter"]["live"]
    server.engine.script.load_error = "no room"
    failed = await load(server, "risk", server.make_adapter("v2", seed=2))
    assert failed.status_code == 502
    assert failed.json()["error"]["code"] == "adapter_error"
    answer = await server.client.post("/generate", json={"prompt": "a", "adapter": "risk", "max_tokens": 1})
    assert answer.json()["adapter"] == first
    assert [handle.name for handle in server.engine.adapters.values()] == [first]


async def test_b5_14_of_two_who_replace_the_same_version_one_is_told_that_it_is_gone(running_server):
    server = await running_server(script=Script(load_seconds=0.02))
    first = (await load(server, "risk", server.make_adapter("v1", seed=1))).json()["adapter"]["live"]
    sources = [server.make_adapter(f"v{seed}", seed=seed) for seed in (2, 3)]
    bodies = [{"name": "risk", "source": source, "expected_live": first} for source in sources]
    answers = await asyncio.gather(*(server.client.post("/admin/adapters", json=body) for body in bodies))
    [won] = [answer for answer in answers if answer.status_code == 201]
    [lost] = [answer for answer in answers if answer is not won]
    assert (lost.status_code, refusal(lost)["code"]) == (409, "adapter_conflict")
    answer = await server.client.post("/generate", json={"prompt": "a", "adapter": "risk", "max_tokens": 1})
    assert answer.json()["adapter"] == won.json()["adapter"]["live"]
    await until(lambda: len(server.engine.adapters) == 1, "the engine holds the live version alone")


async def test_b5_15_fifty_streams_finish_on_the_version_they_began_with(running_server):
    server = await running_server(max_num_seqs=128)
    v1 = (await load(server, "risk", server.make_adapter("v1", seed=1))).json()["adapter"]["live"]
    v2_source = server.make_adapter("v2", seed=2)
    server.engine.gate.clear()  # after the first token every stream waits

    async def stream(client: httpx.AsyncClient) -> tuple[set[str], dict[str, Any]]:
        body = {"prompt": "a", "adapter": "risk", "max_tokens": 20, "stream": True}
        answer = await client.post("/generate", json=body)
        assert answer.status_code == 200
        events = events_of(answer.content)
        assert [name for name, _ in events] == ["delta"] * 20 + ["done"]
        return {fields["text"].strip() for name, fields in events if name == "delta"}, events[-1][1]

    limits = httpx.Limits(max_connections=120)
    async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=30) as client:
        old = [asyncio.create_task(stream(client)) for _ in range(50)]
        async with asyncio.timeout(patient(20)):
            await server.engine.wait_active(50)
        server.engine.gate.set()  # the probe of the new version must get through ...
        server.engine.script.tpot_seconds = 0.05  # ... while the old streams take another second
        replaced = await load(server, "risk", v2_source)
        assert replaced.status_code == 201
        v2 = replaced.json()["adapter"]["live"]
        assert replaced.json()["replaced"] == v1
        assert v1 != v2
        [draining] = [m for m in server.gateway.adapters.board.versions() if str(m.version) == v1]
        assert draining.in_flight == 50  # the swap did happen under all of them
        new = [asyncio.create_task(stream(client)) for _ in range(10)]
        for task, version in [(task, v1) for task in old] + [(task, v2) for task in new]:
            words, done = await task
            assert words == {version}
            assert done["adapter"] == version
    await until(lambda: len(server.engine.adapters) == 1, "the old version is unloaded")
    assert [handle.name for handle in server.engine.adapters.values()] == [v2]
    assert holds_nothing(server)
