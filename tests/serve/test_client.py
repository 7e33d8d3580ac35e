"""The command line's client: events in order, and every failure as one error with the gateway's words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import orjson
import pytest

from serve.client import GatewayClient, GatewayRefusedError, GatewayUnreachableError

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


@pytest.mark.parametrize("url", ["gateway:8000", "http://[::1", "http://gateway:port", ""])
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


def test_without_a_key_no_header_is_sent(connect: Callable[..., GatewayClient]) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert "authorization" not in request.headers
        return httpx.Response(200, json={"adapters": []})

    assert connect(handler).list_adapters() == {"adapters": []}
