"""Row 18: ten times more requests than there is room for."""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter

import httpx

from adapters.registry.keys import NewKey
from serve.access.api_key import make_key
from tests.patience import patient
from tests.serve.faults.client import REPLY_SECONDS, holds_nothing, refusal, resident_mib, until

RUNNING, QUEUED = 3, 4  # max_num_seqs 2 and a quarter ahead, but at least one
BURST = 10 * (RUNNING + QUEUED)


async def test_b5_18_of_a_tenfold_burst_the_excess_gets_429_at_once_and_the_rest_is_answered(running_server):
    server = await running_server(max_num_seqs=2, max_queued_requests=QUEUED)
    server.engine.gate.clear()
    before = resident_mib()
    limits = httpx.Limits(max_connections=BURST)
    async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=30) as client:
        body = {"prompt": "a", "max_tokens": 4}
        tasks = [asyncio.create_task(client.post("/generate", json=body)) for _ in range(BURST)]
        refused = BURST - RUNNING - QUEUED
        async with asyncio.timeout(patient(20)):
            while sum(task.done() for task in tasks) < refused:
                await asyncio.wait([t for t in tasks if not t.done()], return_when=asyncio.FIRST_COMPLETED)
        admission = server.gateway.admission
        assert (admission.running, admission.queued_requests) == (RUNNING, QUEUED)
        assert len(server.engine.requests) == RUNNING
        assert server.engine.facts.max_num_seqs == 2
        assert (await client.get("/readyz")).status_code == 200
        server.engine.gate.set()
        answers = await asyncio.gather(*tasks)
    assert Counter(answer.status_code for answer in answers) == {429: refused, 200: RUNNING + QUEUED}
    for answer in answers:
        if answer.status_code == 429:
            assert refusal(answer)["code"] == "queue_full"
            assert 1 <= int(answer.headers["retry-after"]) <= 60
        else:
            assert answer.json()["usage"]["completion_tokens"] == 4
    assert resident_mib() - before < 50
    assert holds_nothing(server)
    counted = server.gateway.metrics.registry.get_sample_value(
        "hotswap_rejections_total", {"code": "queue_full"}
    )
    assert counted == refused


async def test_b5_18_a_full_server_refuses_within_a_tenth_of_a_second(running_server):
    server = await running_server(max_num_seqs=2, max_queued_requests=QUEUED)
    server.engine.gate.clear()
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as filler:
        tasks = [
            asyncio.create_task(filler.post("/generate", json={"prompt": "a", "max_tokens": 4}))
            for _ in range(RUNNING + QUEUED)
        ]
        async with asyncio.timeout(patient(5)):
            while server.gateway.admission.requests < RUNNING + QUEUED:
                await asyncio.sleep(0.005)
        seconds = []
        for number in range(60):
            if number % 2:
                message = {"role": "user", "content": "a"}
                body = {"model": "scripted", "messages": [message]}
                answer = await server.client.post("/v1/chat/completions", json=body)
            else:
                answer = await server.client.post("/generate", json={"prompt": "a"})
            assert answer.status_code == 429
            seconds.append(answer.elapsed.total_seconds())
        assert statistics.median(seconds) < 0.1
        assert max(seconds) < REPLY_SECONDS
        server.engine.gate.set()
        assert {answer.status_code for answer in await asyncio.gather(*tasks)} == {200}


async def test_b5_18_waiting_prompts_are_bounded_by_their_tokens_too(running_server):
    server = await running_server(max_num_seqs=1, max_queued_tokens=100)
    server.engine.gate.clear()
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:

        def ask(num_tokens: int) -> asyncio.Task[httpx.Response]:
            return asyncio.create_task(
                client.post("/generate", json={"prompt": "a" * num_tokens, "max_tokens": 2})
            )

        async def wait_requests(count: int) -> None:
            async with asyncio.timeout(patient(5)):
                while server.gateway.admission.requests < count:
                    await asyncio.sleep(0.005)

        tasks = [ask(1), ask(1)]  # run
        await wait_requests(2)
        tasks.append(ask(90))  # waits
        await wait_requests(3)
        refused = await ask(20)
        assert refused.status_code == 429
        assert "90 prompt tokens wait (at most 100)" in refusal(refused)["message"]
        tasks.append(ask(10))
        await wait_requests(4)
        assert server.gateway.admission.queued_tokens == 100
        server.engine.gate.set()
        assert {answer.status_code for answer in await asyncio.gather(*tasks)} == {200}


async def test_b5_18_a_tenant_that_floods_the_queue_gets_429_and_another_is_served(running_server):
    server = await running_server(
        max_num_seqs=2, max_queued_requests=QUEUED, auth="required", admin_key="x" * 16
    )
    keys = []
    for tenant in ("flood", "quiet"):
        fresh = make_key()
        await server.gateway.keys.create(NewKey(fresh.id, fresh.digest, "test", tenant), actor="test")
        keys.append(fresh.text)
    server.engine.gate.clear()
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:

        def ask(key: str) -> asyncio.Task[httpx.Response]:
            body = {"prompt": "a", "max_tokens": 4}
            return asyncio.create_task(
                client.post("/generate", json=body, headers={"authorization": f"Bearer {key}"})
            )

        flood = [ask(keys[0]) for _ in range(30)]
        await until(lambda: sum(task.done() for task in flood) == 30 - RUNNING - QUEUED, "the excess refused")
        quiet = [ask(keys[1]) for _ in range(QUEUED // 2)]
        await until(
            lambda: sum(task.done() for task in flood) == 30 - RUNNING - QUEUED // 2, "room for another"
        )
        server.engine.gate.set()
        assert {answer.status_code for answer in await asyncio.gather(*quiet)} == {200}
        answers = await asyncio.gather(*flood)
    assert Counter(a.status_code for a in answers) == {
        429: 30 - RUNNING - QUEUED // 2,
        200: RUNNING + QUEUED // 2,
    }
    assert {refusal(a)["code"] for a in answers if a.status_code == 429} == {"queue_full"}
    assert holds_nothing(server)


async def test_b5_18_a_quiet_tenant_waits_for_one_turn_and_not_for_a_flood(running_server):
    """The flood has thirty times more waiting; the other's requests are answered among the first."""
    server = await running_server(max_num_seqs=2, max_queued_requests=400)
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        await server.gateway.adapters.load("risk", server.make_adapter("risk"), actor="test")
        server.engine.gate.clear()
        order: list[str] = []

        async def ask(adapter: str | None) -> None:
            answer = await client.post("/generate", json={"prompt": "a", "max_tokens": 2, "adapter": adapter})
            assert answer.status_code == 200
            order.append(str(adapter))

        flood = [asyncio.create_task(ask(None)) for _ in range(90)]
        await until(lambda: server.gateway.admission.requests == 90, "the flood", patient(5))
        quiet = [asyncio.create_task(ask("risk")) for _ in range(3)]
        await until(lambda: server.gateway.admission.requests == 93, "the others", patient(5))
        server.engine.gate.set()
        await asyncio.gather(*flood, *quiet)
    assert max(place for place, adapter in enumerate(order) if adapter == "risk") < 30
