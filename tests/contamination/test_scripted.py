"""The harness on the scripted engine: a sound server passes, and every way of being wrong is found."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from serve.engine.protocol import AdapterHandle, EngineOutput, EngineRequest
from serve.errors import GenerationFailedError
from serve.http.exchange import Exchange
from serve.lifecycle.board import AdapterBoard
from serve.lifecycle.version import ManagedVersion
from tests.contamination.dialects import ALL
from tests.contamination.report import Report
from tests.contamination.run import Plan, contaminate
from tests.contamination.servers import WordEngine, scripted_server

SOUND_SECONDS = 12.0
FOUND_SECONDS = 30.0  # within a second or two where the machine does nothing else
Spoil = Callable[[pytest.MonkeyPatch], WordEngine]


async def run(home: Path, engine: WordEngine, plan: Plan) -> Report:
    async with scripted_server(home, engine) as server:
        return await contaminate(server, plan)


async def test_a_sound_server_answers_every_request_with_the_right_word(clean_environment, tmp_path):
    report = await run(tmp_path, WordEngine(), Plan(SOUND_SECONDS, min_words=100))
    print(report.text())
    assert report.ok, report.text()
    assert report.words_compared >= 100
    assert len(report.restart_seconds) >= 1
    assert set(report.requests_by_dialect) == {dialect.name for dialect in ALL}
    assert len(report.answers_by_version) >= 8  # of twelve versions and the base
    assert report.outcomes["answered"] > report.requests / 5
    assert len(report.verbs) >= 10


class Now:
    """True now and then, always at the same places."""

    def __init__(self, share: float = 0.05) -> None:
        self._drawn = random.Random(0)
        self._share = share

    def __bool__(self) -> bool:
        return self._drawn.random() < self._share


class OtherWeights(WordEngine):
    """Now and then another adapter's weights are used: a mixed batch, or a stale prefix."""

    def __init__(self, now: Now, *, base: bool) -> None:
        super().__init__()
        self.now, self.base = now, base

    async def word(self, request: EngineRequest) -> str:
        word = await super().word(request)
        if self.base == (request.adapter is None) and self.now and self.weights:
            others = [handle for handle in self.adapters.values() if handle != request.adapter]
            if others:
                return await super().word(EngineRequest("x", (), request.sampling, others[-1]))
        return word


class BaseForAdapter(WordEngine):
    """Now and then the base answers for an adapter."""

    now = Now()

    async def word(self, request: EngineRequest) -> str:
        return "base" if request.adapter is not None and self.now else await super().word(request)


class Forgetful(WordEngine):
    """Now and then fails a request of its own accord."""

    now = Now()

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        if self.now:
            raise GenerationFailedError("forgotten")
        async for output in super().generate(request):
            yield output


class Hoarder(WordEngine):
    """Says that it forgot an adapter, and keeps it."""

    async def unload_adapter(self, adapter: AdapterHandle) -> None:
        del adapter


class ReadsTheFolderAgain(WordEngine):
    """One adapter's weights change while it is loaded: what it says changes in the middle."""

    now = Now(0.02)

    async def _steps(self, request: EngineRequest) -> AsyncIterator[EngineOutput]:
        spoilt = False
        async for output in super()._steps(request):
            spoilt = spoilt or bool(self.now)
            for delta in output.deltas:
                delta.text = "wffffffff " if spoilt and request.adapter is not None else delta.text
            yield output


def plain(engine: Callable[[], WordEngine]) -> Spoil:
    return lambda _: engine()


def names_another_version(monkeypatch: pytest.MonkeyPatch) -> WordEngine:
    """The right version answers, and the answer says that it was another."""
    use, now = Exchange.json, Now()

    async def json(self: Exchange, payload: Any, status: int = 200) -> None:
        if status == 200 and payload.get("adapter") and now:
            name = payload["adapter"].partition("@")[0]
            payload = {**payload, "adapter": f"{name}@00000000"}
        await use(self, payload, status)

    monkeypatch.setattr(Exchange, "json", json)
    return WordEngine()


def old_version_lingers(monkeypatch: pytest.MonkeyPatch) -> WordEngine:
    """The verb is answered before the name has moved."""
    point = AdapterBoard.point

    def later(self: AdapterBoard, managed: ManagedVersion) -> ManagedVersion | None:
        previous = self.behind(managed.version.name)
        if previous is None or previous is managed:
            return point(self, managed)
        asyncio.get_running_loop().call_later(0.5, point, self, managed)
        return None

    monkeypatch.setattr(AdapterBoard, "point", later)
    return WordEngine()


def a_gap_in_every_swap(monkeypatch: pytest.MonkeyPatch) -> WordEngine:
    """The old version is taken away a little before the new one is there."""
    point = AdapterBoard.point

    def with_gap(self: AdapterBoard, managed: ManagedVersion) -> ManagedVersion | None:
        previous = point(self, managed)
        self._aliases.pop(managed.version.name)
        asyncio.get_running_loop().call_later(0.05, self._aliases.setdefault, managed.version.name, managed)
        return previous

    monkeypatch.setattr(AdapterBoard, "point", with_gap)
    return WordEngine()


def ends_twice(monkeypatch: pytest.MonkeyPatch) -> WordEngine:
    """Now and then the last event of a stream comes twice."""
    event, now = Exchange.event, Now()

    async def twice(self: Exchange, chunk: bytes) -> None:
        await event(self, chunk)
        if (b"event: done" in chunk or b"[DONE]" in chunk) and now:
            await event(self, chunk)

    monkeypatch.setattr(Exchange, "event", twice)
    return WordEngine()


def silent_end(monkeypatch: pytest.MonkeyPatch) -> WordEngine:
    """Now and then a stream just stops."""
    event, now = Exchange.event, Now()

    async def swallowed(self: Exchange, chunk: bytes) -> None:
        if (b"event: done" in chunk or b"[DONE]" in chunk) and now:
            return
        await event(self, chunk)

    monkeypatch.setattr(Exchange, "event", swallowed)
    return WordEngine()


def lease_leaks(monkeypatch: pytest.MonkeyPatch) -> WordEngine:
    """Now and then a version is not given back."""
    use, now = ManagedVersion.use, Now(0.02)

    def keeps(self: ManagedVersion) -> Any:
        if now:
            self.in_flight += 1
        return use(self)

    monkeypatch.setattr(ManagedVersion, "use", keeps)
    return WordEngine()


WRONG: dict[str, tuple[Spoil, set[str]]] = {
    "another adapter's words": (plain(lambda: OtherWeights(Now(), base=False)), {"wrong_word"}),
    "an adapter's words from the base": (plain(lambda: OtherWeights(Now(), base=True)), {"wrong_word"}),
    "the base for an adapter": (plain(BaseForAdapter), {"wrong_word"}),
    "other words in the middle": (plain(ReadsTheFolderAgain), {"wrong_word"}),
    "requests that fail": (plain(Forgetful), {"refused"}),
    "adapters that stay in the engine": (plain(Hoarder), {"rest"}),
    "another version's name": (names_another_version, {"wrong_version"}),
    "the old version after the move": (old_version_lingers, {"wrong_version"}),
    "a gap in every swap": (a_gap_in_every_swap, {"refused"}),
    "two ends": (ends_twice, {"two_ends"}),
    "no end": (silent_end, {"lost"}),
    "a lease that is not given back": (lease_leaks, {"rest"}),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_server_that_is_wrong_is_found_out(clean_environment, monkeypatch, tmp_path, case):
    monkeypatch.setattr("tests.contamination.run.REST_SECONDS", 1.0)
    # What a leaked lease holds up, it does not hold up for long.
    monkeypatch.setattr("tests.contamination.director.DRAIN_SECONDS", 1.0)
    monkeypatch.setattr("serve.lifecycle.retirement._ABORT_SECONDS", 0.5)
    spoil, kinds = WRONG[case]
    plan = Plan(FOUND_SECONDS, round_seconds=3.0, kills_each_round=0, until_fault=True)
    report = await run(tmp_path, spoil(monkeypatch), plan)
    assert not report.ok
    assert kinds <= set(report.faults), report.text()
