"""Ids are made here; what a client sends is a label at most."""

from __future__ import annotations

from typing import Any

import pytest

from serve.http.request_id import CLIENT_ID_KEY, RequestIdMiddleware, new_request_id, request_id_of


async def run(headers: list[tuple[bytes, bytes]]) -> tuple[dict[str, Any], dict[bytes, bytes]]:
    """The scope that the application saw, and the headers of the answer."""
    seen: list[Any] = []
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    nothing: Any = None
    await RequestIdMiddleware(app)({"type": "http", "headers": headers}, nothing, send)
    return seen[0], dict(sent[0]["headers"])


async def test_the_answer_carries_the_id_that_the_application_saw() -> None:
    scope, headers = await run([])
    assert headers[b"x-request-id"].decode() == request_id_of(scope)
    assert request_id_of(scope).startswith("req-")


def test_ids_do_not_repeat() -> None:
    assert len({new_request_id() for _ in range(1000)}) == 1000


async def test_a_clients_id_is_kept_beside_ours() -> None:
    scope, headers = await run([(b"x-request-id", b"trace-1:a.b_c")])
    assert scope["state"][CLIENT_ID_KEY] == "trace-1:a.b_c"
    assert request_id_of(scope) != "trace-1:a.b_c"
    assert headers[b"x-request-id"].decode() == request_id_of(scope)


@pytest.mark.parametrize(
    "given", [b"", b"a b", b"a\r\nX-Evil: 1", b'"', b"a" * 65, b"\xff", "é".encode(), b"a\n"]
)
async def test_a_clients_id_that_could_forge_something_is_dropped(given: bytes) -> None:
    scope, headers = await run([(b"x-request-id", given)])
    assert CLIENT_ID_KEY not in scope["state"]
    assert set(headers) == {b"x-request-id"}


def test_a_scope_without_an_id_has_the_empty_one() -> None:
    assert request_id_of({"type": "http"}) == ""
