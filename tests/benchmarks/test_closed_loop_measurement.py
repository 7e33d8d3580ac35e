"""The whole measurement, on servers with a scripted engine: known tokens, known pace."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks.closed_loop.client import BlockOrder
from benchmarks.closed_loop.measurement import Measurement, Progress, run_client
from benchmarks.closed_loop.part import Contender, Part
from benchmarks.closed_loop.plan import Plan
from benchmarks.errors import NoAnswerError, ServerStartError
from benchmarks.server import Server, ServerSpec, running

GENERATE = Contender("gateway-generate", "the gateway's own dialect", "gateway", "generate")
COMPLETIONS = Contender("gateway-completions", "OpenAI's", "gateway", "completions")
STOCK = Contender("vllm", "the other server", "vllm", "completions")
PLAN = Plan(concurrency=(1, 4), rounds=2, requests=4, max_tokens=6, settle_seconds=0.0, ready_seconds=120.0)


def scripted(name: str, home) -> ServerSpec:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HOTSWAP_")}
    command = [sys.executable, "-m", "hotswap", "serve", "--engine", "scripted", "--port", "{port}"]
    return ServerSpec(
        name, f"scripted {name}", "scripted", "/readyz", [*command, "--home", str(home)], environment
    )


@pytest.fixture
def part(tmp_path) -> Part:
    servers = (scripted("gateway", tmp_path / "one"), scripted("vllm", tmp_path / "two"))
    return Part(
        "equal", "two scripted servers", servers, (GENERATE, COMPLETIONS, STOCK), STOCK.name, together=True
    )


@pytest.fixture(scope="module")
def up(tmp_path_factory) -> Iterator[dict[str, Server]]:
    """Two servers that run already, for tests that do not care who started them."""
    folder = tmp_path_factory.mktemp("up")
    specs = (scripted("gateway", folder / "one"), scripted("vllm", folder / "two"))
    with running(specs, logs=folder, ready_seconds=120.0) as servers:
        yield servers


def order_for(url: str, **changes) -> BlockOrder:
    order = BlockOrder(
        url=url,
        dialect="generate",
        model="scripted",
        prompts=["one", "two", "three"],
        concurrency=3,
        requests_per_worker=2,
        max_tokens=5,
        request_timeout_seconds=60.0,
    )
    return replace(order, **changes)


def test_contenders_take_turns_and_every_request_is_kept(part, tmp_path):
    blocks = Measurement(part, PLAN, out=tmp_path).run()
    turns = [(block.round, block.concurrency, block.contender) for block in blocks]
    assert turns == [
        (number, concurrency, name)
        for number, names in enumerate(
            [
                ["gateway-generate", "gateway-completions", "vllm"],
                ["gateway-completions", "vllm", "gateway-generate"],
            ]
        )
        for concurrency in (1, 4)
        for name in names
    ]
    lines = [json.loads(line) for line in (tmp_path / "requests-equal.jsonl").read_text().splitlines()]
    measured = [line for line in lines if line["stage"] == "measured"]
    assert len(measured) == sum(block.attempted for block in blocks) == 3 * 2 * (4 + 4 * 3)
    assert {line["completion_tokens"] for line in measured} == {6}
    assert all(line["error"] is None for line in measured)
    assert all(block.cost.http_cpu_seconds is not None for block in blocks)


def test_servers_started_one_at_a_time_never_meet(part, tmp_path):
    apart = replace(part, name="defaults", together=False, contenders=(GENERATE, STOCK))
    said: list[str] = []
    plan = replace(PLAN, concurrency=(2,))
    blocks = Measurement(apart, plan, out=tmp_path, progress=Progress(say=said.append)).run()
    assert [block.contender for block in blocks] == ["gateway-generate", "vllm", "vllm", "gateway-generate"]
    assert sum("starting" in line for line in said) == 4
    assert all(block.cost.idle_servers_cpu_seconds == 0.0 for block in blocks)


def test_the_client_keeps_the_load_up_until_every_worker_is_done(up):
    outcome = run_client(order_for(up["gateway"].url))
    by_stage = {stage: [s for s in outcome.samples if s.stage == stage] for stage in ("warmup", "measured")}
    assert len(by_stage["warmup"]) == 3
    assert len(by_stage["measured"]) == 6
    assert sorted(sample.completion_tokens or 0 for sample in by_stage["warmup"]) == [2, 3, 5]
    assert all(sample.ok and len(sample.event_seconds) == 5 for sample in by_stage["measured"])
    assert outcome.cpu_seconds > 0


def test_a_refused_request_is_a_failure_with_its_reason(up):
    outcome = run_client(order_for(up["gateway"].url, dialect="completions", model="nobody"))
    errors = {sample.error.split(":")[0] for sample in outcome.samples if sample.error}
    assert errors == {"HTTP 404"}
    assert not any(sample.ok for sample in outcome.samples)


def test_zero_answers_end_the_measurement_with_the_reason(up, tmp_path):
    other = ServerSpec("vllm", "the other server", "nobody", "/v1/models", url=up["vllm"].url)
    broken = Part("running", "a model that nobody serves", (other,), (STOCK,), STOCK.name, together=True)
    with pytest.raises(NoAnswerError, match="answered none of 4 requests at concurrency 1: HTTP 404"):
        Measurement(broken, PLAN, out=tmp_path).run()


def test_a_server_that_ends_while_starting_shows_the_end_of_its_log(tmp_path):
    command = [sys.executable, "-c", "raise SystemExit('no such model')"]
    spec = ServerSpec("vllm", "the stock server", "m", "/health", command, dict(os.environ))
    with (
        pytest.raises(ServerStartError, match=r"exit code 1 while starting:\n  no such model"),
        running([spec], logs=tmp_path, ready_seconds=60.0),
    ):
        pass


def test_the_cause_is_shown_though_the_log_goes_on_after_it(tmp_path):
    program = (
        "print('ValueError: too little memory'); [print('frame', n) for n in range(99)]; raise SystemExit(3)"
    )
    spec = ServerSpec(
        "vllm", "the stock server", "m", "/health", [sys.executable, "-c", program], dict(os.environ)
    )
    with (
        pytest.raises(
            ServerStartError, match=r"exit code 3 .*\n  ValueError: too little memory\n  frame 91\n"
        ),
        running([spec], logs=tmp_path, ready_seconds=60.0),
    ):
        pass


def test_a_running_server_that_does_not_answer_is_named(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        spec = ServerSpec("gateway", "the gateway", "m", "/readyz", url=url)
        with (
            pytest.raises(ServerStartError, match="is it running there"),
            running([spec], logs=tmp_path, ready_seconds=0.2),
        ):
            pass
