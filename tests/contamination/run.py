"""A run of the harness: rounds of traffic under verbs and kills, each followed by a look at a server at rest."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from tests.contamination.admin import Admin
from tests.contamination.cast import NAMES
from tests.contamination.clients import BASE_TOP, Clients
from tests.contamination.dialects import ALL, GENERATE, Ask
from tests.contamination.director import Director, knows
from tests.contamination.history import History
from tests.contamination.judge import Judge, numbers
from tests.contamination.killer import Killer
from tests.contamination.report import Report
from tests.contamination.servers import ServerUnderTest

MORE_SECONDS = 5.0  # of a round that is there because too little had happened
# The server closes what is idle for 5 s: a client that is quicker never writes into a connection that is closing.
KEEP_ALIVE_SECONDS = 2.0
REST_SECONDS = 60.0  # draining versions, and what clients that left have behind them, are gone within it
_POLL_SECONDS = 0.05
MIB = 1024**2
GAUGES_AT_REST = frozenset(
    {
        "hotswap_in_flight_requests",
        "hotswap_running_sequences",
        "hotswap_queued_requests",
        "hotswap_queued_tokens",
    }
)
UP = frozenset({"checked", "loading", "probing", "live", "draining"})
NO_SUCH_NAME: dict[str, Any] = {"live": None, "desired": None, "settled": True, "versions": []}


@dataclass(frozen=True)
class Plan:
    """How long, how many, and from which seed everything is drawn."""

    seconds: float
    min_words: int = 0  # it goes on until so many answers were compared with their word
    num_clients: int = 16
    seed: int = 0
    round_seconds: float = 60.0
    kills_each_round: int = 1  # of the engine
    until_fault: bool = False  # a fault ends it


class Run:
    """One server under traffic and verbs, every answer judged."""

    def __init__(
        self,
        server: ServerUnderTest,
        plan: Plan,
        connect: Callable[[], httpx.AsyncClient],
        admin: Admin,
        tell: Callable[[str], None],
    ) -> None:
        self.judge = Judge(server.cast, History())
        self._tell = tell
        self._server = server
        self._plan = plan
        self._admin = admin
        self._connect = connect
        self._clients = Clients(
            connect, server.cast, ALL, self.judge.hear, seed=plan.seed, leave_seconds=server.leave_seconds
        )
        self._directors = [Director(admin, server.cast, name, self.judge, seed=plan.seed) for name in NAMES]
        self._killer = Killer(server, admin, self.judge)

    async def run(self) -> Report:
        """For the seconds of the plan."""
        started, memory_mib = time.perf_counter(), []
        await self._hear_the_base_alone()
        for director in self._directors:
            await director.begin()
        while not self._over(time.perf_counter() - started):
            left = self._plan.seconds - (time.perf_counter() - started)
            if left > 0:
                await self._round(min(left, self._plan.round_seconds), self._plan.kills_each_round)
            else:
                await self._round(MORE_SECONDS, 0)
            await self._rest()
            memory_mib.append(self._server.process.memory_info().rss / MIB)
            self._tell(f"after {time.perf_counter() - started:.0f} s: {self.judge.so_far()}")
        return Report.of(
            self.judge,
            verbs=sum((director.verbs for director in self._directors), Counter()),
            verbs_cut_off=sum((director.cut_off for director in self._directors), Counter()),
            seconds=time.perf_counter() - started,
            seed=self._plan.seed,
            memory_mib=memory_mib,
            restart_seconds=self._killer.restart_seconds,
            requests_repeated=self._admin.repeated,
        )

    def _over(self, seconds: float) -> bool:
        if self._plan.until_fault and self.judge.fault_kinds:
            return True
        return seconds >= self._plan.seconds and self.judge.words >= self._plan.min_words

    async def _hear_the_base_alone(self) -> None:
        cast = self.judge.cast
        async with self._connect() as client:
            for number, given in enumerate(cast.inputs):
                ask = Ask(None, given, cast.max_tokens[0], {"temperature": 0}, BASE_TOP)
                heard = await self._clients.ask(client, GENERATE[0], ask, number)
                self.judge.hear(heard)
                self.judge.base_alone[number] = numbers(heard)

    async def _round(self, seconds: float, num_kills: int) -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, stop.set)
        if self._plan.until_fault:
            self.judge.on_fault = stop.set
        async with asyncio.TaskGroup() as group:
            group.create_task(self._clients.run(self._plan.num_clients, stop))
            group.create_task(self._killer.run(stop, seconds, num_kills))
            for director in self._directors:
                group.create_task(director.run(stop, pause_seconds=self._server.pause_seconds))

    async def _rest(self) -> None:
        """Wait for the server to come to rest, and see that nothing stayed behind and all is as it should be."""
        deadline = time.perf_counter() + REST_SECONDS
        while wrong := await not_at_rest(self._admin, self._directors):
            if time.perf_counter() > deadline:
                for text in wrong:
                    self.judge.fault("rest", text)
                for director in self._directors:
                    if any(director.name in text for text in wrong):
                        self.judge.fault("trace", "; ".join(director.trace))
                return
            await asyncio.sleep(_POLL_SECONDS)


async def contaminate(
    server: ServerUnderTest, plan: Plan, *, tell: Callable[[str], None] = lambda _: None
) -> Report:
    """A whole run; `tell` gets a line after each round."""
    limits = httpx.Limits(keepalive_expiry=KEEP_ALIVE_SECONDS)
    trust = httpx.create_ssl_context()  # made once: it takes longer than a request, and nobody speaks TLS

    def connect(seconds: float | None = None) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=server.url, timeout=seconds, limits=limits, verify=trust)

    async with connect(60) as admin:
        return await Run(server, plan, connect, Admin(admin), tell).run()


async def not_at_rest(client: Admin, directors: Sequence[Director]) -> list[str]:
    """What is not as it should be when nobody asks for anything."""
    wrong = []
    for line in (await client.get("/metrics")).text.splitlines():
        name, _, value = line.partition(" ")
        if name in GAUGES_AT_REST and float(value) != 0:
            wrong.append(f"{name} is {value}")
    listing = (await client.get("/admin/adapters")).json()
    by_name = {adapter["name"]: adapter for adapter in listing["adapters"]}
    for director in directors:
        wrong += _not_as_it_should_be(by_name.pop(director.name, NO_SUCH_NAME), director)
    if by_name:
        wrong.append(f"unknown names {sorted(by_name)}")
    num_wanted = sum(len(director.standing.wanted) for director in directors)
    if listing["resident"] != num_wanted:
        wrong.append(f"the engine holds {listing['resident']} adapters instead of {num_wanted}")
    return wrong


def _not_as_it_should_be(shown: dict[str, Any], director: Director) -> list[str]:
    name, standing, versions = director.name, director.standing, shown["versions"]
    wrong = [
        f"{name} has {field} {shown[field]} instead of {standing.live}"
        for field in ("live", "desired")
        if shown[field] != standing.live
    ]
    wrong += [
        f"{version['version']} has {version['in_flight']} requests in flight"
        for version in versions
        if version["in_flight"]
    ]
    if not shown["settled"]:
        wrong.append(f"{name} is not settled: {shown['reason']}")
    if not knows(versions, standing):
        listed = {version["version"]: version["state"] for version in versions}
        wrong.append(f"{name} has kept {listed} instead of {sorted(standing.known)}")
    up = {version["version"] for version in versions if version["state"] in UP}
    if up != standing.wanted:
        wrong.append(f"{name} has {sorted(up)} instead of {sorted(standing.wanted)}")
    return wrong
