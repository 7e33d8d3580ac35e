"""PUT /admin/adapters/{name}: compressed, as a dry run, beside the live version, and again with the same key."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from serve.schemas.admin import LoadAnswer
from tests.serve.asgi_call import AsgiCall
from tests.serve.routes.test_upload import TAR, staged, tar_of

URL = "/admin/adapters/risk"
GZIPPED = [
    {"Content-Type": "application/x-tar", "Content-Encoding": "gzip"},
    {"Content-Type": "application/gzip"},
    {"Content-Type": "application/x-gzip"},
]


def body(made: Any, source: str = "a", seed: int = 0) -> bytes:
    return tar_of(made.settings.adapter_folder / made.make_adapter(source, seed=seed))


@pytest.mark.parametrize("headers", GZIPPED)
async def test_a_compressed_tar_is_the_same_adapter(scripted_gateway: Any, headers: dict[str, str]) -> None:
    made = await scripted_gateway()
    tar = body(made)
    first = await made.client.put(URL, content=gzip.compress(tar), headers=headers)
    assert first.status_code == 201, first.text
    again = await made.client.put(URL, content=tar, headers=TAR)
    assert (again.status_code, again.json()["version"]) == (200, first.json()["version"])
    assert staged(made) == []


async def test_a_bomb_is_refused_and_leaves_nothing(scripted_gateway: Any) -> None:
    made = await scripted_gateway()
    for content, code in (
        (gzip.compress(tar_of_zeros(64 * 2**20)), "upload_refused"),
        (gzip.compress(body(made)) + b"more", "upload_refused"),
        (gzip.compress(body(made))[:-20], "upload_refused"),
        (body(made), "upload_refused"),
    ):
        answer = await made.client.put(URL, content=content, headers=GZIPPED[1])
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, code), answer.text
        assert answer.headers["connection"] == "close"
    assert staged(made) == []
    assert made.engine.adapters == {}


def tar_of_zeros(num_bytes: int) -> bytes:
    """Weights that are zeros: small when compressed."""
    from serve.lifecycle.adapter_tar import TAR_END, tar_header

    return tar_header("adapter_model.safetensors", num_bytes) + bytes(num_bytes) + TAR_END


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/x-tar", "Content-Encoding": "br"},
        {"Content-Type": "application/x-tar", "Content-Encoding": "gzip, gzip"},
        {"Content-Type": "application/gzip", "Content-Encoding": "gzip"},
        {"Content-Type": "application/zip"},
    ],
)
async def test_another_compression_is_refused_before_the_body(
    scripted_gateway: Any, headers: dict[str, str]
) -> None:
    made = await scripted_gateway()
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    call = AsgiCall(made.app, "PUT", URL, body=b"x" * 100, headers=raw)
    status, answered = await call.head()
    assert (status, answered["connection"], call.unread) == (415, "close", 1)


async def test_a_dry_run_says_what_the_check_found_and_keeps_nothing(scripted_gateway: Any) -> None:
    made = await scripted_gateway()
    tar = body(made)
    good = await made.client.put(f"{URL}?dry_run=true", content=tar, headers=TAR)
    assert (good.status_code, good.json()["ok"], good.json()["problems"]) == (200, True, [])
    bad = await made.client.put(f"{URL}?dry_run=true", content=tar_of_zeros(2048), headers=TAR)
    assert (bad.status_code, bad.json()["ok"]) == (200, False)
    assert {problem["code"] for problem in bad.json()["problems"]} >= {"config_missing"}
    assert (made.engine.adapters, staged(made)) == ({}, [])
    assert (await made.client.get("/admin/adapters")).json()["adapters"] == []


async def test_an_upload_beside_the_live_version_and_with_an_expectation(scripted_gateway: Any) -> None:
    made = await scripted_gateway()
    live = LoadAnswer.model_validate((await made.client.put(URL, content=body(made), headers=TAR)).json())
    new = body(made, "b", seed=1)
    beside = await made.client.put(f"{URL}?promote=false", content=new, headers=TAR)
    answer = LoadAnswer.model_validate(beside.json())
    assert (beside.status_code, answer.adapter.live) == (201, live.version)
    assert answer.version != live.version
    for expected, status in (("none", 409), ("0" * 8, 409), (live.version, 201)):
        moved = await made.client.put(f"{URL}?expected_live={expected}", content=new, headers=TAR)
        assert moved.status_code == status, moved.text
    assert staged(made) == []


async def test_the_same_upload_with_the_same_key_is_one_operation(scripted_gateway: Any) -> None:
    made = await scripted_gateway()
    headers, tar = {**TAR, "Idempotency-Key": "push-1"}, body(made)
    answers = [await made.client.put(URL, content=tar, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].headers["x-operation-id"] == answers[1].headers["x-operation-id"]
    other = await made.client.put(URL, content=body(made, "b", seed=1), headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
    assert staged(made) == []


async def test_an_upload_that_is_not_waited_for_keeps_its_files_until_it_is_loaded(
    scripted_gateway: Any,
) -> None:
    made = await scripted_gateway()
    accepted = await made.client.put(f"{URL}?wait=0", content=body(made), headers=TAR)
    assert accepted.status_code == 202
    await made.gateway.operations.wait_quiet()
    ended = (await made.client.get(accepted.headers["location"])).json()
    assert (ended["state"], ended["status"]) == ("done", 201)
    assert staged(made) == []


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        (b"promote=maybe", []),
        (b"expected_live=it", []),
        (b"wait=-1", []),
        (b"", [(b"idempotency-key", b"a b")]),
    ],
)
async def test_a_malformed_wish_ends_the_connection_before_the_body(
    scripted_gateway: Any, query: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    made = await scripted_gateway()
    headers = [*headers, (b"content-type", b"application/x-tar")]
    call = AsgiCall(made.app, "PUT", URL, body=b"x" * 100, headers=headers)
    call.scope["query_string"] = query
    status, answered = await call.head()
    assert (status, answered["connection"], call.unread) == (422, "close", 1)
