"""OpenAI requests over the death of an engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from serve.engine.scripted import Script
from serve.errors import EngineDeadError
from tests.serve.engine.supervised.conftest import MakeFleet
from tests.serve.engine.supervised.fleet import RISK, Fleet, until

PROMPT_TOKENS = len("user: hello\n")


class Observed:
    def __init__(self) -> None:
        self.prompts: list[int] = []
        self.tokens = 0

    def prompt(self, num_tokens: int) -> None:
        self.prompts.append(num_tokens)

    def output(self, num_tokens: int, queue_seconds: float | None, ttft_seconds: float | None) -> None:
        del queue_seconds, ttft_seconds
        self.tokens += num_tokens


async def ask(fleet: Fleet, observed: Observed, *, stream: bool, route: str = "chat") -> str:
    """The text of an answer, whole or streamed."""
    body: dict[str, Any] = {"model": RISK.name, "max_tokens": 3, "stream": stream}
    if route == "chat":
        body["messages"] = [{"role": "user", "content": "hello"}]
        answer = await fleet.engine.openai.chat(body, "req", observed)
    else:
        answer = await fleet.engine.openai.completions({**body, "prompt": "user: hello\n"}, "req", observed)
    if isinstance(answer, Mapping):
        choice = answer["choices"][0]
        return str(choice["message"]["content"] if route == "chat" else choice["text"])
    text = ""
    async for event in answer:
        data = event.removeprefix("data: ").strip()
        if data != "[DONE]":
            choice = json.loads(data)["choices"][0]
            text += choice["delta"]["content"] if route == "chat" else choice["text"]
    return text


@pytest.mark.parametrize("route", ["chat", "completions"])
@pytest.mark.parametrize("stream", [True, False])
async def test_what_had_sent_nothing_is_answered_by_the_next_engine_and_counted_once(
    make_fleet: MakeFleet, stream: bool, route: str
) -> None:
    fleet, observed = make_fleet(Script(ttft_seconds=60.0)), Observed()
    await fleet.start()
    asked = asyncio.create_task(ask(fleet, observed, stream=stream, route=route))
    await fleet.last.wait_active(1)
    fleet.script.ttft_seconds = 0.0
    fleet.last.die()
    assert await asked == "risk@3f2a91c0 " * 3
    assert (observed.prompts, observed.tokens) == ([PROMPT_TOKENS], 3)
    assert fleet.metric("retried_requests_total") == 1


async def test_a_stream_that_has_begun_ends_with_the_death(make_fleet: MakeFleet) -> None:
    fleet, observed = make_fleet(Script(die_after_tokens=2, deaths=1)), Observed()
    await fleet.start()
    with pytest.raises(EngineDeadError):
        await ask(fleet, observed, stream=True)
    assert (observed.prompts, observed.tokens) == ([PROMPT_TOKENS], 2)
    await until(lambda: fleet.why_not() is None)
    assert fleet.last.requests == []


@pytest.mark.parametrize("stream", [True, False])
async def test_a_second_death_is_told(make_fleet: MakeFleet, stream: bool) -> None:
    fleet, observed = make_fleet(Script(die_after_tokens=0, deaths=2)), Observed()
    await fleet.start()
    with pytest.raises(EngineDeadError):
        await ask(fleet, observed, stream=stream)
    assert [len(engine.requests) for engine in fleet.made] == [1, 1]
    assert (observed.prompts, observed.tokens) == ([], 0)
    assert await ask(fleet, observed, stream=stream) == "risk@3f2a91c0 " * 3


async def test_while_nothing_happens_tokens_are_told_as_they_come(make_fleet: MakeFleet) -> None:
    fleet, observed = make_fleet(), Observed()
    await fleet.start()
    assert await ask(fleet, observed, stream=True) == "risk@3f2a91c0 " * 3
    assert (observed.prompts, observed.tokens) == ([PROMPT_TOKENS], 3)
