"""A run of the harness: rounds of traffic under verbs, each followed by a look at a server at rest."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from tests.contamination.cast import NAMES
from tests.contamination.clients import BASE_TOP, Clients
from tests.contamination.dialects import ALL, GENERATE, Ask, Dialect
from tests.contamination.director import Director
from tests.contamination.history import History
from tests.contamination.judge import Judge, numbers
from tests.contamination.report import Report
from tests.contamination.servers import ServerUnderTest

REST_SECONDS = 60.0  # draining versions, and what clients that left have behind them, are gone within it
_POLL_SECONDS = 0.05
MIB = 1024**2


@dataclass(frozen=True)
class Plan:
    """How long, how many, and from which seed everything is drawn."""

    seconds: float
    num_clients: int = 16
    seed: int = 0
    round_seconds: float = 60.0


async def contaminate(server: ServerUnderTest, plan: Plan, dialects: Sequence[Dialect] = ALL) -> Report:
    """Traffic and verbs for `plan.seconds`, every answer judged."""
    started = time.perf_counter()
    judge = Judge(server.cast, History())
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=plan.num_clients)
    verb_counts: Counter[str] = Counter()
    memory_mib: list[float] = []
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=None, limits=limits) as client,
        httpx.AsyncClient(base_url=server.url) as admin,
    ):
        clients = Clients(
            client, server.cast, dialects, judge.hear, seed=plan.seed, leave_seconds=server.leave_seconds
        )
        await _hear_the_base_alone(clients, judge)
        directors = [Director(admin, server.cast, name, judge, seed=plan.seed) for name in NAMES]
        for director in directors:
            await director.begin()
        while (left := plan.seconds - (time.perf_counter() - started)) > 0:
            await _round(
                clients, directors, plan.num_clients, min(left, plan.round_seconds), server.pause_seconds
            )
            await _rest(admin, directors, judge)
            memory_mib.append(server.process.memory_info().rss / MIB)
        for director in directors:
            verb_counts += director.verbs
    return Report.of(
        judge, verb_counts, time.perf_counter() - started, plan.seed, [round(mib, 1) for mib in memory_mib]
    )


async def _hear_the_base_alone(clients: Clients, judge: Judge) -> None:
    for number, given in enumerate(judge.cast.inputs):
        ask = Ask(None, given, judge.cast.max_tokens[0], {"temperature": 0}, BASE_TOP)
        heard = await clients.ask(GENERATE[0], ask, number)
        judge.hear(heard)
        judge.base_alone[number] = numbers(heard)


async def _round(
    clients: Clients, directors: Sequence[Director], num_clients: int, seconds: float, pause_seconds: float
) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, stop.set)
    async with asyncio.TaskGroup() as group:
        group.create_task(clients.run(num_clients, stop))
        for director in directors:
            group.create_task(director.run(stop, pause_seconds=pause_seconds))


async def _rest(client: httpx.AsyncClient, directors: Sequence[Director], judge: Judge) -> None:
    """Wait for the server to come to rest, and see that nothing stayed behind and all is as it should be."""
    deadline = time.perf_counter() + REST_SECONDS
    while wrong := await _not_at_rest(client, directors):
        if time.perf_counter() > deadline:
            for text in wrong:
                judge.fault("rest", text)
            return
        await asyncio.sleep(_POLL_SECONDS)


async def _not_at_rest(client: httpx.AsyncClient, directors: Sequence[Director]) -> list[str]:
    """What is not as it should be when nobody asks for anything."""
    wrong = []
    for line in (await client.get("/metrics")).text.splitlines():
        name, _, value = line.partition(" ")
        if name in GAUGES_AT_REST and float(value) != 0:
            wrong.append(f"{name} is {value}")
    listing = (await client.get("/admin/adapters")).json()
    by_name = {adapter["name"]: adapter for adapter in listing["adapters"]}
    num_resident = 0
    for director in directors:
        standing = director.standing
        num_resident += len(standing.resident)
        shown = by_name.pop(director.name, {"live": None, "versions": []})
        live = str(standing.live) if standing.live is not None else None
        if shown["live"] != live:
            wrong.append(f"{director.name} means {shown['live']} instead of {live}")
        wrong += [
            f"{version['version']} has {version['in_flight']} requests in flight"
            for version in shown["versions"]
            if version["in_flight"]
        ]
        up = {
            v["version"]
            for v in shown["versions"]
            if v["state"] in ("live", "draining", "loading", "probing")
        }
        if up != {str(version) for version in standing.resident}:
            wrong.append(f"{director.name} has {sorted(up)} instead of {sorted(map(str, standing.resident))}")
    if by_name:
        wrong.append(f"unknown names {sorted(by_name)}")
    if listing["resident"] != num_resident:
        wrong.append(f"the engine holds {listing['resident']} adapters instead of {num_resident}")
    return wrong


GAUGES_AT_REST = frozenset(
    {
        "hotswap_in_flight_requests",
        "hotswap_running_sequences",
        "hotswap_queued_requests",
        "hotswap_queued_tokens",
    }
)
