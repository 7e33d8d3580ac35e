"""Shadows: what is copied to them, what becomes of it, and that nobody else notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters.name import AdapterVersion
from serve.engine.protocol import AdapterHandle, Delta, EngineOutput, EngineRequest, Sampling
from serve.engine.scripted import Script, ScriptedEngine
from serve.errors import GenerationFailedError, RequestAbortedError
from serve.lifecycle.openai_text import text_of_answer, text_of_event, text_of_events
from serve.lifecycle.shadow import Shadows, agreement
from serve.lifecycle.state import AdapterState
from serve.lifecycle.version import ManagedVersion, VersionFacts
from serve.observability.metrics import GatewayMetrics
from serve.running import RunningRequests

LIVE = (AdapterState.CHECKED, AdapterState.LOADING, AdapterState.LIVE)
SHADOW = AdapterVersion("risk", "b" * 64)


@dataclass
class Room:
    running: int = 0
    queued_requests: int = 0
    draining: bool = False


class Stage:
    """Shadows on a scripted engine, with the gateway's own load played by the test."""

    def __init__(
        self, script: Script | None = None, *, max_num_seqs: int = 16, max_seconds: float = 30
    ) -> None:
        self.engine = ScriptedEngine(script, max_num_seqs=max_num_seqs)
        self.room, self.running, self.metrics = Room(), RunningRequests(), GatewayMetrics()
        self.shadows = Shadows(self.engine, self.room, self.running, self.metrics, max_seconds=max_seconds)
        handle = AdapterHandle(str(SHADOW), 2, Path("risk"))
        self.shadow = ManagedVersion(SHADOW, handle, VersionFacts(4, 9, "risk"), on_step=lambda *_: None)
        for step in LIVE:
            self.shadow.advance(step)
        self.engine.adapters[2] = handle

    async def answer(self, number: int = 1, *, temperature: float = 0.0, n: int = 1, tokens: int = 4) -> str:
        """One live request; returns its text. The shadow is asked when it is complete."""
        request = EngineRequest(
            f"r{number}",
            [1, 2, 3],
            Sampling(n=n, max_tokens=tokens, temperature=temperature),
            AdapterHandle("risk@aaaaaaaa", 1, Path("risk")),
            cache_salt="salt",
        )
        text = ""
        async with aclosing(
            self.shadows.watch(self.engine.generate(request), request, self.shadow)
        ) as outputs:
            async for output in outputs:
                text += output.deltas[0].text
        return text

    async def quiet(self) -> None:
        """Wait until no shadow is asked."""
        async with asyncio.timeout(10):
            while self.shadows.sequences:
                await asyncio.sleep(0)
        await asyncio.sleep(0)

    def value(self, name: str, **labels: str) -> float:
        given = {"adapter": "risk", "version": "bbbbbbbb", **labels}
        return self.metrics.registry.get_sample_value(name, given) or 0.0

    def outcomes(self) -> dict[str, float]:
        names = ("done", "failed", "dropped", "cut_off")
        found = {name: self.value("hotswap_shadow_requests_total", outcome=name) for name in names}
        return {name: count for name, count in found.items() if count}


async def test_a_shadow_is_asked_the_same_after_the_live_answer() -> None:
    stage = Stage()
    assert await stage.answer() == "risk@aaaaaaaa " * 4
    assert stage.shadow.in_flight == 1
    await stage.quiet()
    live, copied = stage.engine.requests
    assert (copied.request_id, copied.adapter) == ("shadow-r1", stage.shadow.handle)
    assert (copied.prompt_token_ids, copied.cache_salt) == (live.prompt_token_ids, "salt")
    assert stage.outcomes() == {"done": 1}
    assert stage.shadow.in_flight == 0
    assert stage.value("hotswap_shadow_ttft_seconds_count") == 1


async def test_greedy_answers_are_compared_and_sampled_ones_are_not() -> None:
    stage = Stage()
    await stage.answer(1)
    await stage.quiet()
    await stage.answer(2, temperature=0.7)
    await stage.quiet()
    assert stage.outcomes() == {"done": 2}
    # The scripted engine's tokens are the same whoever speaks.
    assert stage.value("hotswap_shadow_compared_total", result="equal") == 1
    assert stage.value("hotswap_shadow_agreement_sum") == 1


async def test_a_different_answer_is_counted_with_how_far_it_agreed() -> None:
    stage = Stage()
    request = EngineRequest("r1", [1], Sampling(max_tokens=4, temperature=0.0))

    async def live() -> AsyncGenerator[EngineOutput, None]:
        yield EngineOutput([Delta(0, "x", token_ids=(0, 1, 9, 9), finish_reason="stop")])

    async for _ in stage.shadows.watch(live(), request, stage.shadow):
        pass
    await stage.quiet()
    assert stage.value("hotswap_shadow_compared_total", result="different") == 1
    assert stage.value("hotswap_shadow_agreement_sum") == 0.5


@pytest.mark.parametrize(
    ("one", "other", "share"), [("", "", 1), ("a", "", 0), ("abc", "abd", 2 / 3), ("ab", "abcd", 0.5)]
)
def test_agreement_is_the_part_before_the_first_difference(one: str, other: str, share: float) -> None:
    assert agreement(one, other) == pytest.approx(share)
    assert agreement(other, one) == pytest.approx(share)


async def test_a_live_answer_that_was_not_complete_is_not_copied() -> None:
    stage = Stage(Script(fail_after_tokens=2))
    with pytest.raises(GenerationFailedError):
        await stage.answer()
    outputs = stage.shadows.watch(
        stage.engine.generate(EngineRequest("r2", [1], Sampling(max_tokens=9))),
        EngineRequest("r2", [1], Sampling(max_tokens=9)),
        stage.shadow,
    )
    async for _ in outputs:
        break
    await outputs.aclose()
    assert (stage.outcomes(), stage.shadow.in_flight) == ({}, 0)
    assert stage.engine.aborted == ["r1", "r2"]


@pytest.mark.parametrize("change", ["queued_requests", "running", "draining"])
async def test_there_is_no_shadow_while_the_engine_has_better_to_do(change: str) -> None:
    stage = Stage()
    setattr(stage.room, change, 16)
    await stage.answer()
    assert stage.outcomes() == {"dropped": 1}
    assert len(stage.engine.requests) == 1


async def test_no_more_shadows_run_than_the_budget_has_places() -> None:
    stage = Stage(max_num_seqs=16)
    assert stage.shadows.budget == 2
    for number in range(4):
        stage.engine.script.ttft_seconds = 0.0
        await stage.answer(number, tokens=1)
        stage.engine.script.ttft_seconds = 30.0
        await stage.engine.wait_active(min(2, number + 1))
    assert stage.shadows.sequences == 2
    assert stage.outcomes() == {"dropped": 2}
    await stage.shadows.close()
    await asyncio.sleep(0)
    assert stage.outcomes() == {"dropped": 2, "cut_off": 2}
    assert stage.shadow.in_flight == 0


async def test_a_wide_request_is_not_copied_into_a_narrow_budget() -> None:
    stage = Stage(max_num_seqs=16)
    await stage.answer(n=3)
    assert stage.outcomes() == {"dropped": 1}


@pytest.mark.parametrize("reason", ["queue", "drain", "leaves"])
async def test_a_shadow_is_cut_off_when_it_is_in_the_way(reason: str) -> None:
    stage = Stage()
    await stage.answer(tokens=4)
    stage.engine.gate.clear()
    await stage.engine.wait_active(1)
    if reason == "queue":
        stage.room.queued_requests = 1
    elif reason == "drain":
        stage.room.draining = True
    else:
        stage.shadow.advance(AdapterState.DRAINING)
    stage.engine.gate.set()
    await stage.quiet()
    assert stage.outcomes() == {"cut_off": 1}
    assert stage.engine.aborted == ["shadow-r1"]
    assert stage.shadow.in_flight == 0


async def test_whoever_unloads_a_version_can_end_its_shadows() -> None:
    stage = Stage()
    await stage.answer()
    stage.engine.gate.clear()
    await stage.engine.wait_active(1)
    assert stage.running.abort_version("risk@bbbbbbbb", RequestAbortedError("unloaded")) == 1
    await stage.quiet()
    assert (stage.outcomes(), stage.shadow.in_flight) == ({"cut_off": 1}, 0)


async def test_a_shadow_has_a_time_limit() -> None:
    stage = Stage(max_seconds=0.02)
    await stage.answer()
    stage.engine.gate.clear()
    await stage.quiet()
    assert stage.outcomes() == {"cut_off": 1}


async def test_a_shadow_that_fails_is_counted_and_nothing_else_happens() -> None:
    stage = Stage()
    assert await stage.answer()
    stage.engine.script.fail_after_tokens = 1
    await stage.quiet()
    assert stage.outcomes() == {"failed": 1}
    assert stage.value("hotswap_shadow_agreement_count") == 0


async def test_the_end_ends_shadows_and_begins_no_more() -> None:
    stage = Stage()
    await stage.answer(1)
    await stage.shadows.close()
    await asyncio.sleep(0)
    assert (stage.outcomes(), stage.shadow.in_flight) == ({"cut_off": 1}, 0)
    await stage.answer(2)
    await stage.shadows.close()
    assert stage.outcomes() == {"cut_off": 1, "dropped": 1}


@pytest.mark.parametrize("chat", [True, False])
async def test_an_openai_request_is_copied_as_its_handler_got_it(chat: bool) -> None:
    stage = Stage()
    prompt = {"messages": [{"role": "user", "content": "hi"}]} if chat else {"prompt": "hi"}
    body = {"model": "risk@aaaaaaaa", "max_tokens": 3, "stream_options": {"include_usage": True}, **prompt}
    said = "risk@bbbbbbbb risk@cccccccc risk@bbbbbbbb "
    stage.shadows.mirror_openai("r1", body, stage.shadow, chat=chat, sequences=1, said=said)
    await stage.quiet()
    (copied,) = stage.engine.requests
    assert (copied.request_id, copied.adapter, copied.stream) == ("shadow-r1", stage.shadow.handle, True)
    assert stage.outcomes() == {"done": 1}
    assert stage.value("hotswap_shadow_compared_total", result="different") == 1
    assert stage.value("hotswap_shadow_agreement_sum") == pytest.approx(19 / 42)


def test_the_text_of_openais_answers_is_found_in_every_shape() -> None:
    assert text_of_answer({"choices": [{"index": 0, "message": {"content": "a", "reasoning": "t"}}]}) == "ta"
    assert text_of_answer({"choices": [{"index": 1, "text": "b"}, {"index": 0, "text": "a"}]}) == "a"
    assert text_of_answer({"choices": [{"index": 0, "message": {"content": None}}]}) == ""
    assert text_of_answer({}) == ""
    events = [
        'data: {"choices": [{"index": 0, "delta": {"role": "assistant"}}]}\n\n',
        'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n',
        'data: {"choices": [{"index": 1, "delta": {"content": "b"}}]}\n\n',
        'data: {"choices": [{"index": 0, "text": "c"}]}\n\n',
        'data: {"choices": [], "usage": {}}\n\n',
        "data: [DONE]\n\n",
    ]
    assert text_of_events(events) == "ac"
    with pytest.raises(GenerationFailedError):
        text_of_event('data: {"error": {"message": "no"}}\n\n')
