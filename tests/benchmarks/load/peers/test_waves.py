"""Waves of two servers whose speeds are known."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from aiohttp import web

from benchmarks.load.bench import Bench, prepare
from benchmarks.load.errors import NothingMeasuredError
from benchmarks.load.peers.findings import SAME_ENGINE
from benchmarks.load.peers.wave_findings import wave_lines
from benchmarks.load.peers.waves import Wave, compare_waves, take_waves
from benchmarks.load.settings import load_bench_settings
from benchmarks.load.workload.arrivals import parse_arrivals

TOKENS = 4


@contextmanager
def server(*, tokens: int = TOKENS, gap_seconds: float = 0.0) -> Iterator[str]:
    """Speaks OpenAI's dialect and answers `tokens` tokens."""

    async def complete(request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        if not asked.get("stream"):
            return web.json_response({"choices": [{"text": "a"}], "usage": {"prompt_tokens": 16}})
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for _ in range(tokens):
            await asyncio.sleep(gap_seconds)
            await answer.write(b'data: {"choices": [{"text": "a"}]}\n\n')
        await answer.write(b'data: {"choices": [], "usage": {"completion_tokens": %d}}\n\n' % tokens)
        return answer

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "known", "max_model_len": 4096}]})

    app = web.Application()
    app.add_routes([web.post("/v1/completions", complete), web.get("/v1/models", models)])
    loop, up = asyncio.new_event_loop(), threading.Event()
    runner = web.AppRunner(app)
    port = 0

    async def start() -> None:
        nonlocal port
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        up.set()

    def serve() -> None:
        loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert up.wait(30.0)
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def bench_of(url: str) -> Bench:
    settings = load_bench_settings(
        url=url, api="completions", adapters="none", prompt_tokens="8", answer_tokens=str(TOKENS)
    )
    return prepare(settings)


def test_a_slower_server_is_slower_in_every_wave_and_its_pairs_say_so() -> None:
    waves: dict[str, list[Wave]] = {}
    said: list[str] = []
    with server() as fast, server(gap_seconds=0.05) as slow:
        benches = {"fast": bench_of(fast), "slow": bench_of(slow)}
        take_waves(benches, parse_arrivals("closed:2"), 3, into=waves, say=said.append)
    assert said == [f"wave {number} of 3, closed:2" for number in (1, 2, 3)]
    assert [len(taken) for taken in waves.values()] == [3, 3]
    assert all(one.ttft_seconds >= 0.05 for one in waves["slow"])
    found = compare_waves(waves["slow"], waves["fast"])
    assert found is not None
    assert found.ratio < 1.0
    assert found.added_ttft_seconds > 0.0


def test_an_answer_of_another_length_ends_the_waves_and_those_before_stay() -> None:
    waves: dict[str, list[Wave]] = {}
    with server() as whole, server(tokens=TOKENS - 1) as short:
        benches = {"whole": bench_of(whole), "short": bench_of(short)}
        with pytest.raises(NothingMeasuredError, match=r"short: a wave broke off.*3 tokens, not 4"):
            take_waves(benches, parse_arrivals("closed:1"), 2, into=waves, say=lambda _: None)
    assert [len(taken) for taken in waves.values()] == [1]


def test_equal_waves_meet_the_targets_and_few_or_scattered_ones_decide_nothing() -> None:
    equal = [Wave(100.0 + number, 0.1) for number in range(5)]
    (line,) = wave_lines("closed:1", {"ours": equal, SAME_ENGINE: equal}, SAME_ENGINE)
    assert line.startswith("ours, closed:1: in 5 waves in turns with vllm-mended throughput 1.000 of its")
    assert line.count("wanted: met") == 2
    scattered = [
        replace(one, tok_s=one.tok_s * (0.5 if place % 2 else 2.0)) for place, one in enumerate(equal)
    ]
    (line,) = wave_lines("closed:1", {"ours": scattered, SAME_ENGINE: equal}, SAME_ENGINE)
    assert "at least 0.98 wanted: undecided" in line
    (line,) = wave_lines("closed:1", {"ours": equal, "another": equal}, "another")
    assert "wanted" not in line
    assert wave_lines("closed:1", {"ours": equal[:1], SAME_ENGINE: equal[:1]}, SAME_ENGINE) == []
    assert wave_lines("closed:1", {"ours": equal}, SAME_ENGINE) == []
