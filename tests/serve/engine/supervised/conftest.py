"""A supervised engine for each test, ended after it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from serve.engine.scripted import Script
from serve.engine.supervised.supervisor import SupervisionRules
from tests.serve.engine.supervised.fleet import Fleet

MakeFleet = Callable[..., Fleet]


@pytest.fixture
async def make_fleet() -> AsyncIterator[MakeFleet]:
    """`make_fleet(Script(...), rules(...))`, not started."""
    async with contextlib.AsyncExitStack() as stack:

        def make(script: Script | None = None, given: SupervisionRules | None = None) -> Fleet:
            fleet = Fleet(script, given)
            stack.push_async_callback(fleet.engine.stop)
            return fleet

        yield make
