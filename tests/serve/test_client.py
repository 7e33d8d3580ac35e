"""The command line's client: events in order, and every failure as one error with the gateway's words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from adapters.artefact import WEIGHTS_NAME
from adapters.config import CONFIG_NAME
from adapters.errors import AdapterFileError
from adapters.tiny import make_tiny_adapter
from serve.client import GatewayClient, GatewayRefusedError, GatewayUnreachableError, describe_load
from serve.engine.scripted import SCRIPTED_TARGET
from serve.lifecycle.adapter_tar import AdapterTarReader, file_limits

Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., GatewayClient]]:
    """Clients whose gateway is a function."""
    genuine = httpx.Client
    opened: list[GatewayClient] = []

    def make(handler: Handler, **options: Any) -> GatewayClient:
        monkeypatch.setattr(
            "serve.client.httpx.Client",
            lambda **given: genuine(transport=httpx.MockTransport(handler), **given),
        )
        opened.append(GatewayClient("http://gateway", **options))
        return opened[-1]

    yield make
    for made in opened:
        made.__exit__()


def stream(*events: tuple[str, dict[str, Any]]) -> Handler:
    body = b"".join(b"event: %s\ndata: %s\n\n" % (n.encode(), orjson.dumps(fields)) for n, fields in events)
    return lambda _: httpx.Response(200, content=body)


DELTA = ("delta", {"index": 0, "text": "a"})
DONE = ("done", {"finish_reason": "stop"})


def test_events_come_in_order(connect: Callable[..., GatewayClient]) -> None:
    asked: list[dict[str, Any]] = []
    answer = stream(DELTA, DELTA, DONE)

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(orjson.loads(request.content))
        return answer(request)

    events = list(connect(handler).generate({"prompt": "x"}))
    assert [event["event"] for event in events] == ["delta", "delta", "done"]
    assert asked == [{"prompt": "x", "stream": True}]


def test_an_error_event_is_raised(connect: Callable[..., GatewayClient]) -> None:
    events = connect(stream(DELTA, ("error", {"error": {"message": "the engine died"}}))).generate({})
    assert next(events)["text"] == "a"
    with pytest.raises(GatewayRefusedError, match="the engine died"):
        next(events)


def test_a_stream_without_an_end_is_an_error(connect: Callable[..., GatewayClient]) -> None:
    with pytest.raises(GatewayRefusedError, match="before the answer was complete"):
        list(connect(stream(DELTA)).generate({}))


def test_a_refusal_has_the_gateways_words_and_every_problem(connect: Callable[..., GatewayClient]) -> None:
    problems = [{"code": "rank_too_high", "message": "rank 128", "subject": "r"}]
    error = {"error": {"message": "cannot be loaded", "problems": problems}}
    client = connect(lambda _: httpx.Response(422, json=error))
    with pytest.raises(GatewayRefusedError) as refused:
        client.load_adapter("risk", "here")
    assert str(refused.value) == "HTTP 422: cannot be loaded\n  rank_too_high: rank 128"


@pytest.mark.parametrize("body", [b"<html>Bad Gateway</html>", b"[]", b"null", b'{"error": null}'])
def test_an_answer_that_is_not_ours_is_shown_as_it_is(
    connect: Callable[..., GatewayClient], body: bytes
) -> None:
    client = connect(lambda _: httpx.Response(502, content=body))
    for ask in (client.list_adapters, lambda: list(client.generate({}))):
        with pytest.raises(GatewayRefusedError, match="HTTP 502"):
            ask()


def test_nobody_there_is_one_sentence(connect: Callable[..., GatewayClient]) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    client = connect(handler)
    for ask in (client.list_adapters, lambda: list(client.generate({}))):
        with pytest.raises(GatewayUnreachableError, match=r"http://gateway.*hotswap serve"):
            ask()


@pytest.mark.parametrize(
    "url", ["gateway:8000", "http://[::1", "http://gateway:port", "", "ftp://gateway", "http://"]
)
def test_an_address_that_is_none_is_unreachable(url: str) -> None:
    with pytest.raises(GatewayUnreachableError, match="--url"), GatewayClient(url) as client:
        client.list_adapters()


def test_verbs_are_requests(connect: Callable[..., GatewayClient]) -> None:
    asked: list[tuple[str, str, str | None, bytes]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(
            (request.method, str(request.url), request.headers.get("authorization"), request.content)
        )
        return httpx.Response(200, json={})

    client = connect(handler, admin_key="the-key")
    client.load_adapter("risk", "here")
    client.unload_adapter("a/../b?c", drain_seconds=1.5)
    client.unload_adapter("risk")
    client.list_adapters()
    key = "Bearer the-key"
    assert asked == [
        ("POST", "http://gateway/admin/adapters", key, b'{"name":"risk","source":"here"}'),
        ("DELETE", "http://gateway/admin/adapters/a%2F..%2Fb%3Fc?drain_seconds=1.5", key, b""),
        ("DELETE", "http://gateway/admin/adapters/risk", key, b""),
        ("GET", "http://gateway/admin/adapters", key, b""),
    ]


def operation(state: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": "op-1",
        "state": state,
        "phases": [],
        "result": None,
        "error": None,
        "status": None,
        **fields,
    }


def test_a_verb_that_takes_long_is_followed_to_its_end(connect: Callable[..., GatewayClient]) -> None:
    asked: list[str] = []
    answers = [operation("running"), operation("running"), operation("done", result={"created": True})]

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.url.path}")
        return httpx.Response(202 if len(asked) == 1 else 200, json=answers[len(asked) - 1])

    assert connect(handler).load_adapter("risk", "here", promote=False) == {"created": True}
    assert asked == ["POST /admin/adapters", "GET /admin/operations/op-1", "GET /admin/operations/op-1"]


def test_a_verb_that_fails_late_is_refused_with_its_problems(connect: Callable[..., GatewayClient]) -> None:
    error = {"message": "cannot be loaded", "problems": [{"code": "no_effect", "message": "nothing changed"}]}
    answers = [operation("running"), operation("failed", status=422, error=error)]
    client = connect(lambda _: httpx.Response(200, json=answers.pop(0)))
    with pytest.raises(GatewayRefusedError) as refused:
        client.load_adapter("risk", "here")
    assert str(refused.value) == "HTTP 422: cannot be loaded\n  no_effect: nothing changed"


def test_events_are_read_as_they_come(connect: Callable[..., GatewayClient]) -> None:
    events = (
        b'id: 7\nevent: load\ndata: {"id": 7}\n\n: keep-alive\n\nid: 8\nevent: state\ndata: {"id": 8}\n\n'
    )
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, content=events)

    assert list(connect(handler).events(after=6, name=None)) == [{"id": 7}, {"id": 8}]
    assert asked == ["http://gateway/admin/events?after=6"]
    refused = connect(lambda _: httpx.Response(401, json={"error": {"message": "no key"}}))
    with pytest.raises(GatewayRefusedError, match="HTTP 401: no key"):
        list(refused.events())
    broken = connect(stream(("error", {"error": {"message": "the registry does not answer"}})))
    with pytest.raises(GatewayRefusedError, match="does not answer"):
        list(broken.events())


def test_without_a_key_no_header_is_sent(connect: Callable[..., GatewayClient]) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert "authorization" not in request.headers
        return httpx.Response(200, json={"adapters": []})

    assert connect(handler).list_adapters() == {"adapters": []}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_tiny_adapter(tmp_path / "risk", linear_modules=SCRIPTED_TARGET.linear_modules)


def test_a_push_is_the_adapter_as_a_tar_of_known_length(
    connect: Callable[..., GatewayClient], folder: Path, tmp_path: Path
) -> None:
    asked: list[httpx.Request] = []
    told: list[tuple[int, int]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(201, json={"created": True})

    (folder / "optimizer.pt").write_bytes(b"not sent")
    client = connect(handler, admin_key="the-key")
    assert client.push_adapter("risk", folder, progress=lambda *now: told.append(now)) == {"created": True}
    request = asked[0]
    assert (request.method, str(request.url)) == ("PUT", "http://gateway/admin/adapters/risk")
    assert request.headers["content-type"] == "application/x-tar"
    assert request.headers["content-length"] == str(len(request.content))
    assert request.headers["authorization"] == "Bearer the-key"
    assert told[-1] == (len(request.content), len(request.content))
    got = tmp_path / "got"
    got.mkdir()
    with AdapterTarReader(got, file_limits(2**20)) as reader:
        reader.feed(request.content)
        reader.finish()
    assert {path.name: path.read_bytes() for path in got.iterdir()} == {
        name: (folder / name).read_bytes() for name in (CONFIG_NAME, WEIGHTS_NAME)
    }


def test_a_folder_that_is_no_adapter_is_not_sent(
    connect: Callable[..., GatewayClient], tmp_path: Path
) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise AssertionError("nothing is sent")

    client = connect(handler)
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(AdapterFileError, match="cannot be sent"):
            client.push_adapter("risk", path)


def test_a_file_that_shrinks_while_it_is_sent_is_an_error(
    connect: Callable[..., GatewayClient], folder: Path
) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(201, json={})

    def shrink(sent: int, total: int) -> None:
        (folder / WEIGHTS_NAME).write_bytes(b"")

    with pytest.raises(AdapterFileError, match="became shorter"):
        connect(handler).push_adapter("risk", folder, progress=shrink)


REPLAY = {"kind": "replay", "num_tokens": 96, "max_difference_nats": 0.0021, "slope": 0.998}
EFFECT = {"kind": "effect", "num_tokens": 40, "max_difference_nats": 2.5, "slope": None}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"created": True, "replaced": None, "probe": None}, "risk@3f2a91c0 is live"),
        (
            {"created": True, "replaced": "risk@00000000", "probe": REPLAY},
            "risk@3f2a91c0 is live, replaced risk@00000000; probed over 96 tokens of the training: largest "
            "difference 0.0021 nats, strength 1.00",
        ),
        (
            {"created": False, "replaced": None, "probe": EFFECT},
            "risk@3f2a91c0 was live already; it moves log probabilities by up to 2.5 nats",
        ),
    ],
)
def test_a_load_is_described_with_what_the_probe_measured(answer: dict[str, Any], said: str) -> None:
    assert describe_load({"version": "risk@3f2a91c0", "adapter": {"live": "risk@3f2a91c0"}, **answer}) == said


def test_a_version_beside_the_live_one_is_described_as_such() -> None:
    answer = {"version": "risk@3f2a91c0", "created": True, "replaced": None, "probe": None}
    assert describe_load({**answer, "adapter": {"live": None}}) == "risk@3f2a91c0 is loaded"
    beside = describe_load({**answer, "adapter": {"live": "risk@00000000"}})
    assert beside == "risk@3f2a91c0 is loaded beside risk@00000000"
