"""Row 26: uploads that are wrong, cut off, slow or hostile. Nothing of them is left; the old version serves."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from adapters.artefact import WEIGHTS_NAME
from adapters.config import CONFIG_NAME
from serve.client import GatewayClient, GatewayRefusedError
from serve.lifecycle.adapter_tar import AdapterTarReader
from serve.lifecycle.uploads import MAX_UPLOADS
from tests.serve.conftest import RunningServer
from tests.serve.faults.client import REPLY_SECONDS, refusal, resident_mib, undisturbed, until, wire

KEY = "a key that is long enough for the admin API"
MIB = 1024**2
PATH = "/admin/adapters/risk"


def tar_of(*entries: tuple[str, bytes]) -> bytes:
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return into.getvalue()


def adapter(server: RunningServer, source: str, *, seed: int = 0) -> bytes:
    """A good adapter as an upload."""
    folder = server.server.settings.adapter_folder / server.make_adapter(source, seed=seed)
    return tar_of(*((name, (folder / name).read_bytes()) for name in (CONFIG_NAME, WEIGHTS_NAME)))


def head(*headers: str, path: str = PATH, content_type: str = "application/x-tar") -> bytes:
    lines = [f"PUT {path} HTTP/1.1", "Host: localhost", f"Content-Type: {content_type}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def left_behind(server: RunningServer) -> list[str]:
    """Folders of uploads that are still there."""
    return [path.name for path in (server.server.settings.home / "store").iterdir() if path.name[0] == "."]


@contextlib.asynccontextmanager
async def old_one_serves(server: RunningServer) -> AsyncIterator[None]:
    """A live version before the block answers after it, and no upload has left anything."""
    loaded = await server.client.put(
        PATH, content=adapter(server, "old"), headers={"Content-Type": "application/x-tar"}
    )
    assert loaded.status_code == 201, loaded.text
    version = loaded.json()["adapter"]["live"]
    async with undisturbed(server):
        yield
    body = {"prompt": "a", "adapter": "risk", "max_tokens": 1}
    assert (await server.client.post("/generate", json=body)).json()["text"] == f"{version} "
    assert left_behind(server) == []
    assert [str(managed.version) for managed in server.gateway.adapters.board.versions()] == [version]


BAD_BODIES = {
    "climbs out": (tar_of(("../../evil", b"x")), "upload_refused"),
    "absolute": (tar_of(("/tmp/evil", b"x")), "upload_refused"),
    "a file of another name": (tar_of(("adapter_model.bin", b"x")), "upload_refused"),
    "the same file twice": (tar_of((CONFIG_NAME, b"{}"), (CONFIG_NAME, b"{}")), "upload_refused"),
    "no tar": (b"x" * 4096, "upload_refused"),
    "empty": (b"", "upload_refused"),
    "cut off": (tar_of((WEIGHTS_NAME, b"w" * 4096))[:2000], "upload_refused"),
    "no weights": (tar_of((CONFIG_NAME, b"{}")), "adapter_check_failed"),
    "weights that are none": (tar_of((CONFIG_NAME, b"{}"), (WEIGHTS_NAME, b"x")), "adapter_check_failed"),
}


async def test_b5_26_a_bad_upload_is_refused_by_its_cause(running_server: Any) -> None:
    server = await running_server()
    async with old_one_serves(server):
        for case, (body, code) in BAD_BODIES.items():
            answer = await server.client.put(
                PATH, content=body, headers={"Content-Type": "application/x-tar"}
            )
            error = refusal(answer, case)
            assert (answer.status_code, error["code"]) == (422, code), f"{case}: {error}"
            assert str(server.server.settings.home) not in answer.text, case
    assert not Path("/tmp/evil").exists()
    assert not (server.server.settings.home / "evil").exists()


async def test_b5_26_without_the_key_no_byte_of_the_body_is_read(running_server: Any) -> None:
    server = await running_server(admin_key=KEY)
    async with undisturbed(server), wire(server) as line:
        await line.send(head("Content-Length: 1000000000"))
        answer = await line.answer()
        assert (answer.status, refusal(answer)["code"]) == (401, "invalid_api_key")
        assert answer.headers["connection"] == "close"
        assert answer.seconds < REPLY_SECONDS
        assert await line.closed()
    assert left_behind(server) == []


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "multipart/form-data"])
async def test_b5_26_another_content_type_is_refused_before_the_body(
    running_server: Any, content_type: str
) -> None:
    server = await running_server()
    async with undisturbed(server), wire(server) as line:
        await line.send(head("Content-Length: 1000000000", content_type=content_type))
        answer = await line.answer()
        assert (answer.status, refusal(answer)["code"]) == (415, "content_type")
        assert await line.closed()


async def test_b5_26_a_length_over_the_limit_is_refused_before_the_body(running_server: Any) -> None:
    server = await running_server(max_adapter_mib=1)
    async with old_one_serves(server), wire(server) as line:
        await line.send(head(f"Content-Length: {9 * MIB}"))
        answer = await line.answer()
        assert (answer.status, refusal(answer)["code"]) == (413, "body_too_large")
        assert await line.closed()


async def test_b5_26_a_file_over_the_limit_is_refused_at_its_header(running_server: Any) -> None:
    """A header that promises much costs nothing: the file is not begun."""
    server = await running_server(max_adapter_mib=1)
    async with old_one_serves(server), wire(server) as line:
        bomb = tarfile.TarInfo(WEIGHTS_NAME)
        bomb.size = 8 * 1024**3 - 1
        await line.send(head("Transfer-Encoding: chunked") + b"200\r\n" + bomb.tobuf() + b"\r\n")
        answer = await line.answer()
        error = refusal(answer)
        assert (answer.status, error["code"], error["param"]) == (413, "body_too_large", WEIGHTS_NAME)


async def test_b5_26_a_body_without_a_length_is_cut_off_at_the_limit(running_server: Any) -> None:
    server = await running_server(max_adapter_mib=1)
    async with old_one_serves(server), wire(server) as line:
        before, sent = resident_mib(), 0
        good = adapter(server, "a", seed=1)
        zeros = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        await line.send(head("Transfer-Encoding: chunked") + b"%x\r\n" % len(good) + good + b"\r\n")
        answered = asyncio.create_task(line.answer())
        while not answered.done() and sent < 256 * MIB:
            try:
                await line.send(zeros)
            except ConnectionError:
                break
            sent += 0x10000
        answer = await answered
        assert (answer.status, refusal(answer)["code"]) == (413, "body_too_large")
        assert sent < 32 * MIB
        assert resident_mib() - before < 32


async def test_b5_26_a_client_that_leaves_in_the_middle_leaves_nothing(running_server: Any) -> None:
    server = await running_server()
    async with old_one_serves(server):
        async with wire(server) as line:
            body = adapter(server, "a", seed=1)
            await line.send(head(f"Content-Length: {len(body)}") + body[:1500])
            await until(lambda: len(left_behind(server)) == 1, "the upload has begun")
            line.leave()
        await until(lambda: left_behind(server) == [], "the upload is gone")


async def test_b5_26_an_upload_that_stands_still_is_ended(running_server: Any) -> None:
    server = await running_server(receive_seconds=0.2)
    async with old_one_serves(server), wire(server) as line:
        await line.send(head("Content-Length: 5000") + bytes(100))
        answer = await line.answer()
        assert (answer.status, refusal(answer)["code"]) == (408, "body_timeout")
        assert answer.headers["connection"] == "close"
        assert await line.closed()


async def test_b5_26_an_upload_that_takes_too_long_is_ended_however_busy_it_is(running_server: Any) -> None:
    server = await running_server(upload_seconds=0.3)
    async with old_one_serves(server), wire(server) as line:
        await line.send(head("Content-Length: 1000000"))
        answered = asyncio.create_task(line.answer())
        while not answered.done():
            with contextlib.suppress(ConnectionError):
                await line.send(b"\0")
            await asyncio.sleep(0.02)
        answer = await answered
        assert (answer.status, refusal(answer)["code"]) == (408, "body_timeout")


async def test_b5_26_a_full_disk_is_507(running_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await running_server()
    async with old_one_serves(server):
        body = adapter(server, "a", seed=1)

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(AdapterTarReader, "feed", full)
            answer = await server.client.put(
                PATH, content=body, headers={"Content-Type": "application/x-tar"}
            )
        assert (answer.status_code, refusal(answer)["code"]) == (507, "adapter_store_full")


async def test_b5_26_no_more_than_a_few_uploads_fill_the_disk_at_once(running_server: Any) -> None:
    server = await running_server()
    async with old_one_serves(server), contextlib.AsyncExitStack() as stack:
        body = adapter(server, "a", seed=1)
        for _ in range(MAX_UPLOADS):
            line = await stack.enter_async_context(wire(server))
            await line.send(head(f"Content-Length: {len(body)}") + body[:1000])
        await until(lambda: len(left_behind(server)) == MAX_UPLOADS, "all have begun")
        answer = await server.client.put(PATH, content=body, headers={"Content-Type": "application/x-tar"})
        assert (answer.status_code, refusal(answer)["code"]) == (503, "busy")
        assert answer.headers["retry-after"].isdigit()
        await stack.aclose()
        await until(lambda: left_behind(server) == [], "all are gone")


@pytest.mark.parametrize("num_mib", [1, 64])
async def test_b5_26_a_sender_hears_why_it_was_refused_although_it_was_still_sending(
    running_server: Any, tmp_path: Path, num_mib: int
) -> None:
    server = await running_server(admin_key=KEY)
    (tmp_path / CONFIG_NAME).write_text("{}")
    (tmp_path / WEIGHTS_NAME).write_bytes(bytes(num_mib * MIB))

    def send() -> None:
        with GatewayClient(server.url, admin_key="another key than that of the gateway") as client:
            client.push_adapter("risk", tmp_path)

    with pytest.raises(GatewayRefusedError, match="HTTP 401"):
        await asyncio.to_thread(send)
