"""Row 25: an engine that answers garbage, and clients that write into logs and metrics."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import AsyncIterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serve.engine.protocol import Delta, EngineOutput, EngineRequest, TokenLogprob
from serve.engine.scripted import Script, ScriptedEngine
from serve.observability.logs import HumanFormatter, JsonFormatter
from tests.serve.asgi_call import events_of
from tests.serve.faults.client import holds_nothing, http, refusal, until, wire

ONE = EngineOutput([Delta(0, "one ", token_ids=(1,))])
LAST = EngineOutput([Delta(0, "two", token_ids=(2,), finish_reason="stop")])


class GarbageEngine(ScriptedEngine):
    """Answers with what the test gives it; an exception among the outputs is raised."""

    def __init__(self, *steps: EngineOutput | Exception) -> None:
        super().__init__()
        self.steps = steps

    async def _steps(self, request: EngineRequest) -> AsyncIterator[EngineOutput]:
        for step in self.steps:
            if isinstance(step, Exception):
                raise step
            yield step


FAILURES: dict[str, tuple[list[EngineOutput | Exception], str]] = {
    "a bug after the first token": ([ONE, RuntimeError("secret /srv/path")], "internal_error"),
    "an end without a finish": ([ONE], "generation_failed"),
    "aborted by itself": (
        [ONE, EngineOutput([Delta(0, "", finish_reason="abort")])],
        "generation_failed",
    ),
    "failed by itself": ([ONE, EngineOutput([Delta(0, "", finish_reason="error")])], "generation_failed"),
    "half a character": ([ONE, EngineOutput([Delta(0, "\ud83d", token_ids=(3,))]), LAST], "internal_error"),
    "a sequence that nobody asked for": (
        [ONE, EngineOutput([Delta(5, "x", token_ids=(3,))]), LAST],
        "internal_error",
    ),
}


@pytest.mark.parametrize("case", FAILURES)
async def test_b5_25_a_stream_that_goes_wrong_ends_with_one_error_event(running_server, case):
    steps, code = FAILURES[case]
    server = await running_server(engine=GarbageEngine(*steps))
    answer = await server.client.post("/generate", json={"prompt": "a", "stream": True})
    events = events_of(answer.content)
    assert [name for name, _ in events] == ["delta", "error"]
    assert events[-1][1]["error"]["code"] == code
    assert "secret" not in answer.text
    assert holds_nothing(server)
    assert (await server.client.get("/readyz")).status_code == 200


@pytest.mark.parametrize("case", FAILURES)
async def test_b5_25_a_whole_answer_that_goes_wrong_is_an_error_in_our_shape(running_server, case):
    steps, code = FAILURES[case]
    server = await running_server(engine=GarbageEngine(*steps))
    answer = await server.client.post("/generate", json={"prompt": "a"})
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert error["code"] == code
    assert re.fullmatch(r"req-[0-9a-f]{24}", error["request_id"])
    assert "secret" not in answer.text
    assert holds_nothing(server)


async def test_b5_25_a_finish_told_twice_gives_one_done_event(running_server):
    server = await running_server(engine=GarbageEngine(ONE, LAST, LAST, ONE))
    answer = await server.client.post("/generate", json={"prompt": "a", "stream": True})
    names = [name for name, _ in events_of(answer.content)]
    assert names[-1] == "done"
    assert names.count("done") == 1
    assert "error" not in names


async def test_b5_25_a_log_probability_that_is_no_number_never_becomes_invalid_json(running_server):
    nan = TokenLogprob(1, "a", float("nan"), ((1, "a", float("-inf")),))
    step = EngineOutput([Delta(0, "a", token_ids=(1,), logprobs=(nan,), finish_reason="stop")])
    server = await running_server(engine=GarbageEngine(step))
    whole = await server.client.post("/generate", json={"prompt": "a", "logprobs": 1})
    stream = await server.client.post("/generate", json={"prompt": "a", "logprobs": 1, "stream": True})
    for text in (whole.text, stream.text):
        assert "NaN" not in text
        assert "Infinity" not in text
    assert whole.json()["logprobs"][0]["logprob"] is None
    assert [name for name, _ in events_of(stream.content)] == ["delta", "done"]


@pytest.mark.parametrize(
    "script", [Script(fail_after_tokens=3), Script(die_after_tokens=3)], ids=["fails", "dies"]
)
@pytest.mark.parametrize("route", ["/generate", "/v1/chat/completions"])
async def test_b5_25_an_error_after_the_status_line_is_told_in_the_stream(running_server, script, route):
    server = await running_server(script=script)
    if route == "/generate":
        answer = await server.client.post(route, json={"prompt": "a", "stream": True})
        events = events_of(answer.content)
        assert [name for name, _ in events] == ["delta"] * 3 + ["error"]
        code = events[-1][1]["error"]["code"]
    else:
        message = {"role": "user", "content": "a"}
        answer = await server.client.post(
            route, json={"model": "scripted", "messages": [message], "stream": True}
        )
        *deltas, last, done, _ = answer.text.split("\n\n")
        assert (len(deltas), done) == (3, "data: [DONE]")
        code = json.loads(last.removeprefix("data: "))["error"]["code"]
    assert code in ("generation_failed", "engine_dead")
    await until(lambda: holds_nothing(server), "slot and lease are free")


EVIL_IDS = [
    b'a"b',
    b"a{b}",
    b"req-000000000000000000000000 forged",
    b"\xff\xfe",
    b"x" * 65,
    b"a\tb",
    b"",
]


async def test_b5_25_a_clients_request_id_is_a_label_in_the_log_and_never_the_key(running_server, log_lines):
    server = await running_server()
    for number, evil in enumerate([*EVIL_IDS, b"good-id.1:2"]):
        async with wire(server) as line:
            head = http("POST", "/generate", {"prompt": "a", "max_tokens": 1})
            await line.send(
                head.replace(b"\r\nContent-Length", b"\r\nX-Request-Id: " + evil + b"\r\nContent-Length")
            )
            answer = await line.answer()
            assert answer.status == 200
            assert re.fullmatch(r"req-[0-9a-f]{24}", answer.headers["x-request-id"])
            assert answer.json()["id"] == answer.headers["x-request-id"]
            assert server.engine.requests[number].request_id == answer.headers["x-request-id"]
        last = json.loads(log_lines("hotswap.access")[-1])
        assert last.get("client_request_id") == ("good-id.1:2" if evil == b"good-id.1:2" else None)


async def test_b5_25_what_a_client_sends_cannot_forge_a_log_line(running_server, log_lines):
    server = await running_server()
    forged = "12:00:00 INFO hotswap.access: GET /admin/adapters 200"
    paths = [
        f"/%0a{forged.replace(' ', '%20')}",
        "/%0d%0aX",
        "/%1b%5b2J",
        "/%E2%80%A8x",
        "/a%00b",
        "/" + "p" * 5000,
    ]
    for path in paths:
        async with wire(server) as line:
            await line.send(http("GET", path))
            assert (await line.answer()).status == 404
    for name in (f"x\n{forged}", 'a"} 1\nhotswap_requests_total{route="x', "\x1b[2J"):
        answer = await server.client.post("/generate", json={"prompt": "a", "adapter": name})
        assert answer.status_code == 422
        answer = await server.client.post("/admin/adapters", json={"name": name, "source": name})
        assert answer.status_code == 422
    for kind in ("", "human"):
        for line in log_lines(kind):
            assert line.isprintable(), line
            assert not line.startswith("12:00:00 INFO hotswap.access: GET /admin")
            assert len(line) < 1000


async def test_b5_25_prompts_keys_and_paths_of_the_server_are_in_no_log_and_no_error(
    running_server, log_lines
):
    key, prompt = "k" * 40, "my very secret prompt"
    server = await running_server(admin_key=key)
    server.make_adapter("risk")
    headers = {"authorization": f"Bearer {key}"}
    answers = [
        await server.client.post("/generate", json={"prompt": prompt, "max_tokens": 1}),
        await server.client.post("/generate", json={"prompt": prompt, "max_tokens": 0}),
        await server.client.post("/generate", json={"prompt": {"text": prompt}}),
        await server.client.post("/generate", content=b'{"prompt": "' + prompt.encode()),
        await server.client.post("/generate", json={"prompt": prompt * 1000}),
        await server.client.post("/generate", json={"prompt": "a", "stop": [prompt] * 100}),
        await server.client.post(f"/generate?prompt={prompt}", json={}),
        await server.client.post("/v1/completions", json={"model": "scripted", "prompt": [prompt, 7]}),
        await server.client.post("/admin/adapters", json={"name": "risk", "source": "risk"}, headers=headers),
        await server.client.post("/admin/adapters", json={"name": "risk", "source": "gone"}, headers=headers),
        await server.client.get(f"/admin/adapters?key={key}"),
        await server.client.get("/admin/adapters/risk", headers=headers),
        await server.client.get("/v1/models"),
        await server.client.get("/metrics"),
    ]
    server.engine.script.fail_after_tokens = 0
    answers.append(await server.client.post("/generate", json={"prompt": prompt}))
    assert {answer.status_code for answer in answers} == {200, 201, 400, 401, 422, 500}
    home = str(server.server.settings.home.parent)
    for answer in answers:
        for secret in (prompt, key, home):
            assert secret not in answer.text, answer.text
    logged = log_lines("")
    assert len(logged) > len(answers)
    for line in logged:
        for secret in (prompt, key):
            assert secret not in line, line


async def test_b5_25_a_thousand_invented_names_make_no_new_series(running_server):
    server = await running_server()
    source = server.make_adapter("risk")
    await server.client.post("/admin/adapters", json={"name": "risk", "source": source})
    await server.client.post("/generate", json={"prompt": "a", "adapter": "risk", "max_tokens": 1})
    await server.client.post("/generate", json={"prompt": "a", "max_tokens": 1})

    async def series() -> set[tuple[str, str]]:
        text = (await server.client.get("/metrics")).text
        return {
            (sample.name, str(sorted(sample.labels.items())))
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith("hotswap_")
        }

    async def invent(numbers: range) -> None:
        for number in numbers:
            answer = await server.client.post("/generate", json={"prompt": "a", "adapter": f"n{number}"})
            assert (answer.status_code, refusal(answer)["code"]) == (404, "model_not_found")
        for number in numbers:
            await server.client.get(f"/nowhere/{number}")

    await invent(range(1))
    before = await series()
    await invent(range(1, 300))
    assert await series() == before
    names = set(re.findall(r"\('adapter', '([^']*)'\)", " ".join(labels for _, labels in before)))
    assert names == {"base", "risk", "unknown"}


@pytest.fixture
def log_lines():
    """All that the gateway logs, as JSON lines (by logger name, or all for ""), or as lines for people."""
    as_json, as_text = io.StringIO(), io.StringIO()
    handlers = []
    root = logging.getLogger("hotswap")
    for stream, formatter in ((as_json, JsonFormatter()), (as_text, HumanFormatter())):
        handler = logging.StreamHandler(stream)
        handler.setFormatter(formatter)
        root.addHandler(handler)
        handlers.append(handler)
    level, root.level = root.level, logging.DEBUG
    logging.getLogger("hotswap.access").setLevel(logging.DEBUG)

    def lines(kind: str) -> list[str]:
        if kind == "human":
            return as_text.getvalue().split("\n")[:-1]
        found = as_json.getvalue().split("\n")[:-1]
        return [line for line in found if not kind or json.loads(line)["logger"] == kind]

    yield lines
    for handler in handlers:
        root.removeHandler(handler)
    root.setLevel(level)
    logging.getLogger("hotswap.access").setLevel(logging.NOTSET)
