"""Who is next: tenants share the engine by weight, and each tenant's adapters share what the tenant gets.

Start-time fair queueing (Goyal, Vin, Cheng: "Start-time Fair Queueing", SIGCOMM 1996), in tokens of work as in
Sheng et al.: "Fairness in Serving Large Language Models" (OSDI 2024). Of those that wait the one goes next whose
turn begins first in virtual time; its own next turn then begins `work / weight` later. One that was away comes
back at the present, so that idling saves nothing up. Requests of one tenant for one adapter are a flow: first
come, first served.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

K = TypeVar("K", bound=Hashable)
Measure = Literal["requests", "tokens"]

# Entries of a heap that mean nothing any more are swept out when they are this many and more than the others.
_SWEEP = 64


@dataclass(frozen=True, slots=True)
class Flow:
    """Whose request it is: flows share the engine by weight."""

    tenant: str = ""
    adapter: str | None = None  # alias; None: the base
    weight: float = 1.0  # of the tenant


@dataclass(slots=True, eq=False)
class Waiting:
    """One request that waits. `turn` is resolved when it may go, or fails with the reason why it may not."""

    flow: Flow
    sequences: int
    prompt_tokens: int
    work: int  # tokens to read and to write, as far as they can be known before
    turn: asyncio.Future[None]
    queued: bool = False
    since: float = 0.0  # seconds on the admission's clock


@dataclass(slots=True)
class _Member:
    weight: float
    finish: float = 0.0  # virtual time at which its last turn ends
    start: float = 0.0  # virtual time at which its next turn begins
    credit: float = 0.0  # work that it was charged for and did not use
    waits: bool = False
    stamp: int = 0  # of its one valid entry in the heap


class _Shares(Generic[K]):
    """One level of sharing: virtual time, and the members that wait or were served ahead of it."""

    def __init__(self) -> None:
        self._now = 0.0
        self._members: dict[K, _Member] = {}
        self._turns: list[tuple[float, int, K]] = []  # heap: start, stamp, member; stale ones among them
        self._ahead: list[
            tuple[float, int, K]
        ] = []  # heap: finish, stamp, member that is to be forgotten then
        self._stamps = 0

    def join(self, key: K, weight: float) -> None:
        """The member waits from now on."""
        member = self._member(key, weight)
        member.waits = True
        self._schedule(key, member, max(self._now, member.finish))

    def leave(self, key: K) -> None:
        """Nothing of the member waits any more; it was charged for nothing by this."""
        member = self._members[key]
        member.waits = False
        self._retire(key, member)

    def first(self) -> K:
        """Whose turn it is. At least one member has to wait."""
        while True:
            _, stamp, key = self._turns[0]
            member = self._members.get(key)
            if member is not None and member.waits and member.stamp == stamp:
                return key
            heapq.heappop(self._turns)

    def serve(self, key: K, weight: float, work: float) -> None:
        """Charge the member for a turn, whether it waited for it or not."""
        member = self._member(key, weight)
        start = member.start if member.waits else max(self._now, member.finish)
        self._now = max(self._now, start)
        charged = max(0.0, work - member.credit)
        member.credit = max(0.0, member.credit - work)
        member.finish = start + charged / member.weight
        if member.waits:
            self._schedule(key, member, member.finish)
        else:
            self._retire(key, member)
        while self._ahead and self._ahead[0][0] <= self._now:
            _, stamp, gone = heapq.heappop(self._ahead)
            past = self._members.get(gone)
            if past is not None and not past.waits and past.stamp == stamp:
                del self._members[gone]

    def refund(self, key: K, work: float) -> None:
        """Take so much off what the member's next turns cost, if its last ones are still remembered."""
        if (member := self._members.get(key)) is not None:
            member.credit += work

    def owe(self, key: K, weight: float, work: float) -> None:
        """Let the member's next turn begin so much later: it has had more than it was charged for."""
        member = self._member(key, weight)
        paid = min(member.credit, work)
        member.credit -= paid
        later = (work - paid) / member.weight
        if member.waits:
            self._schedule(key, member, member.start + later)
        else:
            member.finish = max(self._now, member.finish) + later
            self._retire(key, member)

    def _member(self, key: K, weight: float) -> _Member:
        member = self._members.get(key)
        if member is None:
            member = self._members[key] = _Member(weight)
        member.weight = weight
        return member

    def _stamp(self, member: _Member) -> int:
        self._stamps += 1
        member.stamp = self._stamps
        return self._stamps

    def _schedule(self, key: K, member: _Member, start: float) -> None:
        member.start = start
        heapq.heappush(self._turns, (start, self._stamp(member), key))
        self._turns = self._swept(self._turns)

    def _retire(self, key: K, member: _Member) -> None:
        if member.finish <= self._now:
            del self._members[key]
            return
        heapq.heappush(self._ahead, (member.finish, self._stamp(member), key))
        self._ahead = self._swept(self._ahead)

    def _swept(self, heap: list[tuple[float, int, K]]) -> list[tuple[float, int, K]]:
        if len(heap) <= _SWEEP + 2 * len(self._members):
            return heap
        valid = [
            entry for entry in heap if (m := self._members.get(entry[2])) is not None and m.stamp == entry[1]
        ]
        heapq.heapify(valid)
        return valid


@dataclass(slots=True)
class _Line:
    """The requests of one flow, oldest first."""

    waiting: OrderedDict[int, Waiting] = field(default_factory=OrderedDict)
    tokens: int = 0

    def size(self, measure: Measure) -> int:
        return len(self.waiting) if measure == "requests" else self.tokens


class _Room:
    """What one tenant has waiting."""

    def __init__(self) -> None:
        self.weight = 1.0
        self.requests = 0
        self.tokens = 0
        self.lines: dict[str | None, _Line] = {}
        self.shares: _Shares[str | None] = _Shares()

    def size(self, measure: Measure) -> float:
        return (self.requests if measure == "requests" else self.tokens) / self.weight

    def add(self, entry: Waiting) -> None:
        flow = entry.flow
        self.weight = flow.weight
        line = self.lines.get(flow.adapter)
        if line is None:
            line = self.lines[flow.adapter] = _Line()
            self.shares.join(flow.adapter, 1.0)
        line.waiting[id(entry)] = entry
        line.tokens += entry.prompt_tokens
        self.requests += 1
        self.tokens += entry.prompt_tokens

    def first(self) -> Waiting:
        line = self.lines[self.shares.first()]
        return next(iter(line.waiting.values()))

    def remove(self, entry: Waiting, *, served: bool) -> None:
        adapter = entry.flow.adapter
        line = self.lines[adapter]
        del line.waiting[id(entry)]
        line.tokens -= entry.prompt_tokens
        self.requests -= 1
        self.tokens -= entry.prompt_tokens
        if served:
            self.shares.serve(adapter, 1.0, entry.work)
        if not line.waiting:
            del self.lines[adapter]
            self.shares.leave(adapter)


class FairQueue:
    """Requests that wait, and whose turn it is. Each step costs the logarithm of the flows that wait."""

    def __init__(self) -> None:
        self._rooms: dict[str, _Room] = {}
        self._shares: _Shares[str] = _Shares()
        self._requests = 0
        self._tokens = 0

    def __len__(self) -> int:
        return self._requests

    def __iter__(self) -> Iterator[Waiting]:
        for room in self._rooms.values():
            for line in room.lines.values():
                yield from line.waiting.values()

    @property
    def tokens(self) -> int:
        """Prompt tokens that wait."""
        return self._tokens

    def push(self, entry: Waiting) -> None:
        """Put a request at the end of its flow."""
        flow = entry.flow
        room = self._rooms.get(flow.tenant)
        if room is None:
            room = self._rooms[flow.tenant] = _Room()
            self._shares.join(flow.tenant, flow.weight)
        room.add(entry)
        entry.queued = True
        self._requests += 1
        self._tokens += entry.prompt_tokens

    def first(self) -> Waiting | None:
        """The request whose turn it is."""
        return self._rooms[self._shares.first()].first() if self._requests else None

    def serve(self, entry: Waiting) -> None:
        """Take a request out because its turn has come; its flow pays for it."""
        self._remove(entry, served=True)

    def remove(self, entry: Waiting) -> None:
        """Take a request out that gets no turn."""
        self._remove(entry, served=False)

    def charge(self, flow: Flow, work: int) -> None:
        """Let a tenant pay for a request that did not have to wait."""
        self._shares.serve(flow.tenant, flow.weight, work)

    def refund(self, flow: Flow, work: int) -> None:
        """Give back work that was charged for and not used."""
        self._shares.refund(flow.tenant, work)
        if (room := self._rooms.get(flow.tenant)) is not None:
            room.shares.refund(flow.adapter, work)

    def owe(self, flow: Flow, work: int) -> None:
        """Take more than was charged for, after all."""
        self._shares.owe(flow.tenant, flow.weight, work)
        if (room := self._rooms.get(flow.tenant)) is not None:
            room.shares.owe(flow.adapter, 1.0, work)

    def forget(self) -> None:
        """Nothing runs and nothing waits: whoever comes next, nobody owes anybody anything."""
        self._shares = _Shares()

    def has_longer(self, flow: Flow, measure: Measure, extra: int) -> bool:
        """Whether somebody has more waiting for their weight than this flow would with `extra` more."""
        own = self._rooms.get(flow.tenant)
        size = (own.size(measure) if own is not None else 0) + extra / flow.weight
        if any(room.size(measure) > size for tenant, room in self._rooms.items() if tenant != flow.tenant):
            return True
        if own is None:
            return False
        line = own.lines.get(flow.adapter)
        mine = (line.size(measure) if line is not None else 0) + extra
        return any(
            other.size(measure) > mine for adapter, other in own.lines.items() if adapter != flow.adapter
        )

    def newest_of_longest(self, flow: Flow, measure: Measure) -> Waiting:
        """The last to come of the flow that has most waiting for its weight; of equals of `flow`, which waits.

        Costs as much as flows wait; asked only when the queue is full.
        """
        tenant = max(self._rooms, key=lambda name: (self._rooms[name].size(measure), name == flow.tenant))
        lines = self._rooms[tenant].lines
        own = tenant == flow.tenant
        adapter = max(lines, key=lambda name: (lines[name].size(measure), own and name == flow.adapter))
        return next(reversed(lines[adapter].waiting.values()))

    def _remove(self, entry: Waiting, *, served: bool) -> None:
        tenant = entry.flow.tenant
        room = self._rooms[tenant]
        room.remove(entry, served=served)
        entry.queued = False
        self._requests -= 1
        self._tokens -= entry.prompt_tokens
        if served:
            self._shares.serve(tenant, room.weight, entry.work)
        if not room.requests:
            del self._rooms[tenant]
            self._shares.leave(tenant)
