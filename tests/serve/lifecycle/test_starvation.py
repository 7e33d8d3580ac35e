"""A probe in an engine whose adapter slots are never free, as under steady traffic on as many adapters as slots."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from serve.engine.protocol import AdapterHandle
from serve.engine.scripted import ScriptedEngine
from tests.serve.conftest import ScriptedGateway

CLIENTS = 8


class FullEngine(ScriptedEngine):
    """Scores nothing under an adapter while requests run: vLLM passes over what finds no slot."""

    async def score(
        self,
        prompt_token_ids: Sequence[int],
        continuation_token_ids: Sequence[int],
        adapter: AdapterHandle | None,
    ) -> list[float]:
        if adapter is not None:
            await self.wait_gone()
        return await super().score(prompt_token_ids, continuation_token_ids, adapter)


async def test_a_probe_gets_its_turn_under_traffic_that_never_ends_and_no_request_is_lost(
    scripted_gateway: Callable[..., Awaitable[ScriptedGateway]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.lifecycle.turn.PATIENCE_SECONDS", 0.05)
    engine = FullEngine(max_num_seqs=CLIENTS)
    made = await scripted_gateway(engine=engine)
    engine.script.tpot_seconds = 0.001
    loaded = asyncio.Event()
    statuses: list[int] = []

    async def visit(number: int) -> None:
        # Of different lengths, so that they never end together.
        body = {"prompt": "a", "max_tokens": 5 + 3 * number}
        while not loaded.is_set():
            statuses.append((await made.client.post("/generate", json=body)).status_code)

    async with asyncio.TaskGroup() as traffic:
        for number in range(CLIENTS):
            traffic.create_task(visit(number))
        await engine.wait_active(CLIENTS)
        source = made.make_adapter("a")
        answer = await made.client.post("/admin/adapters", json={"name": "risk", "source": source})
        loaded.set()
    assert answer.status_code == 201, answer.text
    assert set(statuses) == {200}
    assert made.holds_nothing
