"""What versions leave in the gateway when they have come, answered and gone: nothing that grows with them."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from serve.operations import operations
from tests.serve.conftest import ScriptedGateway

MakeGateway = Callable[..., Awaitable[ScriptedGateway]]

# Versions; the names' histories and what is remembered of operations are full before it is counted.
WARM_UP, COUNTED = 12, 24
KEPT_VERSIONS, REMEMBERED = 2, 4
SLACK = 20  # objects of one type that come and go with the moment
# The scripted engine writes down what it was asked, for tests.
NOTED_BY_THE_ENGINE = {"EngineRequest", "Sampling", "AdapterHandle"}
OURS = (
    "adapters.",
    "bases.",
    "serve.",
    "prometheus_client.",
    "asyncio.",
    "_asyncio.",
    "starlette.",
    "sqlalchemy.",
)


def objects() -> Counter[str]:
    """Living objects of the gateway's own types and of its libraries', by type."""
    gc.collect()
    kinds = [type(one) for one in gc.get_objects()]
    return Counter(
        f"{kind.__module__}.{kind.__name__}"
        for kind in kinds
        if f"{kind.__module__}.".startswith(OURS) and kind.__name__ not in NOTED_BY_THE_ENGINE
    )


async def come_answer_and_go(gateway: ScriptedGateway, numbers: range) -> None:
    """One version after the other under a name that stays, and one under a name that goes, through HTTP."""
    client = gateway.client
    for number in numbers:
        source = gateway.make_adapter(f"s-{number}", seed=number)
        for name in ("stays", f"goes-{number}"):
            loaded = await client.post("/admin/adapters", json={"name": name, "source": source})
            assert loaded.status_code == 201, loaded.text
            asked = await client.post("/generate", json={"prompt": "Hello", "adapter": name, "max_tokens": 2})
            assert asked.status_code == 200, asked.text
        assert (await client.delete(f"/admin/adapters/goes-{number}?drain=30s")).status_code == 200
        assert (await client.get("/admin/adapters")).status_code == 200


async def test_nothing_in_memory_grows_with_the_number_of_versions_that_came_and_went(
    scripted_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "REMEMBERED", REMEMBERED)
    gateway = await scripted_gateway(keep_versions=KEPT_VERSIONS)
    await come_answer_and_go(gateway, range(WARM_UP))
    before, labels = objects(), len(gateway.gateway.metrics.labels)
    await come_answer_and_go(gateway, range(WARM_UP, WARM_UP + COUNTED))
    after = objects()
    grown = {kind: count - before[kind] for kind, count in after.items() if count > before[kind] + SLACK}
    assert grown == {}, f"kept after {2 * COUNTED} more versions"
    assert len(gateway.gateway.metrics.labels) <= labels
