"""Row 10: schemas and regexes that take long to compile, have no end, or come by the thousand."""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from bases.tiny import make_tiny_base
from serve.engine import grammar
from serve.engine.grammar import MAX_REMEMBERED, GrammarGuard
from tests.patience import patient
from tests.serve.conftest import RunningServer
from tests.serve.faults.client import REPLY_SECONDS, refusal, strangers, undisturbed

COMPILE_SECONDS = 1.0
SLOW = "(.{0,1000}){0,1000}x"  # minutes
LIST = {
    "$ref": "#/$defs/node",
    "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
}


def regex(text: str) -> dict[str, Any]:
    return {"response_format": {"type": "regex", "regex": text}}


def schema(value: dict[str, Any]) -> dict[str, Any]:
    return {
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": value}},
    }


async def ask(server: RunningServer, route: str, response_format: dict[str, Any]) -> httpx.Response:
    body: dict[str, Any] = {"max_tokens": 2, **response_format}
    if route == "/generate":
        body["prompt"] = "constrained"
    else:
        body |= {"model": "scripted", "messages": [{"role": "user", "content": "constrained"}]}
    return await server.client.post(route, json=body, timeout=patient(120))


def compiler_of(server: RunningServer) -> psutil.Process:
    process = server.gateway.grammars._process
    assert process is not None
    return psutil.Process(process.pid)


async def with_compiler(server: RunningServer, tmp_path: Path) -> None:
    """The scripted engine has no tokenizer; its server gets a compiler that has."""
    base = make_tiny_base(tmp_path / "tiny")
    guard = GrammarGuard(enabled=True, tokenizer_path=base, compile_seconds=COMPILE_SECONDS)
    await guard.warm()
    server.gateway.grammars = guard


async def test_b5_10_what_takes_long_is_refused_in_time_and_hundreds_of_schemas_take_bounded_memory(
    running_server, tmp_path
):
    server = await running_server()
    await with_compiler(server, tmp_path)
    async with undisturbed(server):
        for route in ("/generate", "/v1/chat/completions"):
            for harmless in (regex("(a+)+b"), regex("(a|a)*b"), schema(LIST)):
                assert (await ask(server, route, harmless)).status_code == 200
        compiler = compiler_of(server)
        started = time.perf_counter()
        slow = await ask(server, "/generate", regex(SLOW))
        assert (slow.status_code, refusal(slow)["code"]) == (400, "invalid_grammar")
        assert "longer than 1 s" in refusal(slow)["message"]
        assert refusal(slow)["param"] == "response_format"
        assert time.perf_counter() - started < COMPILE_SECONDS + REPLY_SECONDS
        assert not compiler.is_running()
        started = time.perf_counter()
        again = await ask(server, "/v1/chat/completions", regex(SLOW))  # known by now: no compile, no wait
        assert (again.status_code, refusal(again)["code"]) == (400, "invalid_grammar")
        assert time.perf_counter() - started < REPLY_SECONDS
        assert (await ask(server, "/generate", regex("after it"))).status_code == 200
        endless = await ask(server, "/generate", schema({"$ref": "#"}))
        assert (endless.status_code, refusal(endless)["code"]) == (400, "invalid_grammar")
        await check_bounded_memory(server)
    constraints = [request.sampling.constraint for request in strangers(server)]
    assert SLOW not in {constraint.value for constraint in constraints if constraint is not None}


async def check_bounded_memory(server: RunningServer) -> None:
    """Hundreds of different schemas in some seconds are answered and not all remembered."""
    numbers = iter(range(400))

    async def one_client(count: int) -> None:
        for number in itertools.islice(numbers, count):
            unique = schema({"type": "object", "properties": {f"field_{number}": {"type": "integer"}}})
            assert (await ask(server, "/generate", unique)).status_code == 200

    await one_client(100)
    before = compiler_of(server).memory_info().rss
    await asyncio.gather(*(one_client(40) for _ in range(8)))
    assert len(server.gateway.grammars._verdicts) == MAX_REMEMBERED
    assert compiler_of(server).memory_info().rss - before < 50 * 1024**2


@pytest.mark.parametrize("route", ["/generate", "/v1/chat/completions"])
async def test_b5_10_a_schema_beyond_its_size_is_never_compiled(running_server, route):
    server = await running_server()
    large = schema({"type": "object", "properties": {f"p{n}": {"type": "null"} for n in range(40_000)}})
    answer = await ask(server, route, large)
    error = refusal(answer)
    assert (answer.status_code, error["code"]) == (422, "validation_error")
    assert "65536 bytes" in error["message"]
    answer = await ask(server, route, regex("a" * 5000))
    assert answer.status_code == 422
    assert "4096" in refusal(answer)["message"]
    assert server.engine.requests == []


async def test_b5_10_when_too_many_wait_for_the_compiler_the_rest_is_told_when_to_come_back(
    running_server, monkeypatch, tmp_path
):
    monkeypatch.setattr(grammar, "MAX_WAITING", 3)
    stuck = tmp_path / "stuck"
    stuck.write_text("#!/bin/sh\necho '{\"ready\": true}'\nexec sleep 600\n")
    stuck.chmod(0o755)
    monkeypatch.setattr("serve.engine.grammar.sys.executable", str(stuck))
    server = await running_server(request_seconds=1.0)
    server.gateway.grammars = GrammarGuard(enabled=True, tokenizer_path=tmp_path, compile_seconds=60.0)
    async with httpx.AsyncClient(base_url=server.url, timeout=patient(30)) as client:
        bodies = [{"prompt": "a", **regex(f"r{number}")} for number in range(12)]
        answers = await asyncio.gather(*(client.post("/generate", json=body) for body in bodies))
    busy = [answer for answer in answers if answer.status_code == 503]
    late = [answer for answer in answers if answer.status_code == 504]
    assert (len(busy), len(late)) == (9, 3)
    for answer in busy:
        assert refusal(answer)["code"] == "busy"
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.elapsed.total_seconds() < REPLY_SECONDS
    for answer in late:
        assert refusal(answer)["code"] == "deadline_exceeded"
    assert server.engine.requests == []
