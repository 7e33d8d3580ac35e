"""The listing: what has not changed is not made anew, and whatever has changed is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import orjson

from serve.lifecycle.listing import Listing
from serve.lifecycle.status import AdapterStatus
from serve.schemas.admin import adapter_fields
from tests.serve.conftest import ScriptedGateway

MakeGateway = Callable[..., Awaitable[ScriptedGateway]]


async def test_only_names_that_have_changed_are_made_anew(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    for number, name in enumerate(("a", "b", "c")):
        await gateway.load(name, seed=number)
    manager, made = gateway.gateway.adapters, []

    def show(status: AdapterStatus) -> object:
        made.append(status.name)
        return adapter_fields(status)

    listing = Listing(manager.board, show)

    async def listed() -> object:
        return orjson.loads(orjson.dumps(await listing.render(manager.records())))

    def fresh() -> object:
        return orjson.loads(orjson.dumps([adapter_fields(status) for status in manager.statuses()]))

    assert await listed() == await listed() == fresh()
    assert made == ["a", "b", "c"]
    with manager.board.lease("b", param="adapter"):
        assert await listed() == fresh()
    assert await listed() == fresh()
    assert made[3:] == ["b", "b"]
    await gateway.load("c", seed=7)
    assert await listed() == fresh()
    assert set(made[5:]) == {"c"}
    await manager.unload("a", actor="test")
    assert await listed() == fresh()
    before = len(made)
    assert await listed() == fresh()
    assert len(made) == before
