"""Row 24: the disk is full, read-only, or emptied under a server that runs; and the log cannot be written.

The disk is a small one of its own where this user may mount one, and otherwise the system calls that fail.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.patience import patient
from tests.serve.conftest import READY_SECONDS, STOP_SECONDS, RunningServer
from tests.serve.faults.client import refusal, undisturbed

PROJECT = Path(__file__).resolve().parents[3]
DISK_KIB = 2048


class Disk:
    """What the server's home is on."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._monkeypatch = monkeypatch
        folder.mkdir(parents=True)
        self.is_real = self._mount("-t", "tmpfs", "-o", f"size={DISK_KIB}k", "tmpfs")

    def fill(self) -> None:
        """Not a byte is left."""
        if self.is_real:
            with (self._folder / "filler").open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(b"\0" * 4096)
                except OSError as error:
                    assert error.errno == errno.ENOSPC
        else:
            self._fail(errno.ENOSPC)

    def make_read_only(self) -> None:
        """Nothing can be written, but all can be read."""
        if not (self.is_real and self._mount("-o", "remount,ro")):
            self._fail(errno.EROFS)

    def mend(self) -> None:
        """Room again, and writable."""
        self._monkeypatch.undo()
        if self.is_real:
            self._mount("-o", "remount,rw")
            (self._folder / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        if self.is_real:
            subprocess.run(["umount", "-l", str(self._folder)], check=True)

    def _mount(self, *options: str) -> bool:
        command = ["mount", *options, str(self._folder)]
        return os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0

    def _fail(self, number: int) -> None:
        def fail(*_: object, **__: object) -> Any:
            raise OSError(number, os.strerror(number))

        self._monkeypatch.setattr(os, "fsync", fail)
        self._monkeypatch.setattr(tempfile, "mkdtemp", fail)


@pytest.fixture
def disk_under(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Disk]]:
    """`disk_under("store")`: that folder of the server's home on a disk of its own; "": all of it."""
    with contextlib.ExitStack() as stack, monkeypatch.context() as patched:

        def make(folder: str) -> Disk:
            disk = Disk(tmp_path / "home" / folder, patched)
            stack.callback(disk.close)
            stack.callback(disk.mend)
            return disk

        yield make


async def load(server: RunningServer, source: str, **options: Any) -> httpx.Response:
    return await server.client.post("/admin/adapters", json={"name": "risk", "source": source, **options})


async def answered_by(server: RunningServer) -> str:
    answer = await server.client.post("/generate", json={"prompt": "a", "adapter": "risk", "max_tokens": 1})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["adapter"])


async def test_b5_24_on_a_full_disk_a_load_gets_507_and_what_was_live_serves_on(disk_under, running_server):
    disk = disk_under("store")
    server = await running_server()
    v1 = (await load(server, server.make_adapter("v1", seed=1))).json()["adapter"]["live"]
    v2 = server.make_adapter("v2", seed=2)
    disk.fill()
    async with undisturbed(server):
        refused = await load(server, v2)
        assert (refused.status_code, refusal(refused)["code"]) == (507, "adapter_store_full")
        assert await answered_by(server) == v1
        known = (await server.client.get("/admin/adapters/risk")).json()
        assert [version["version"] for version in known["versions"] if version["state"] == "live"] == [v1]
        assert len(server.engine.adapters) == 1
    disk.mend()
    assert (await load(server, v2)).status_code == 201
    assert await answered_by(server) != v1


async def test_b5_24_where_the_registry_cannot_be_written_no_verb_is_taken_and_what_was_live_serves_on(
    disk_under, running_server
):
    disk = disk_under("")
    if not disk.is_real:
        pytest.skip("only root can give a server's home a disk of its own")
    server = await running_server()
    v1 = (await load(server, server.make_adapter("v1", seed=1))).json()["adapter"]["live"]
    v2 = server.make_adapter("v2", seed=2)
    disk.fill()
    async with undisturbed(server):
        for refused in (await load(server, v2), await server.client.delete("/admin/adapters/risk")):
            assert (refused.status_code, refusal(refused)["code"]) == (503, "registry_unavailable")
        assert await answered_by(server) == v1
    disk.mend()
    assert (await load(server, v2)).status_code == 201


async def test_b5_24_on_a_read_only_disk_a_load_gets_503_and_what_was_live_serves_on(
    disk_under, running_server
):
    disk = disk_under("store")
    server = await running_server()
    v1 = (await load(server, server.make_adapter("v1", seed=1))).json()["adapter"]["live"]
    v2 = server.make_adapter("v2", seed=2)
    disk.make_read_only()
    async with undisturbed(server):
        refused = await load(server, v2)
        assert (refused.status_code, refusal(refused)["code"]) == (503, "adapter_store_read_only")
        assert await answered_by(server) == v1
    disk.mend()
    assert (await load(server, v2)).status_code == 201


async def test_b5_24_a_loaded_version_serves_on_without_its_files_and_a_restart_says_what_is_missing(
    running_server,
):
    first = await running_server()
    v1 = (await load(first, first.make_adapter("v1", seed=1))).json()["adapter"]["live"]
    store = first.server.settings.home / "store"
    for version in filter(Path.is_dir, store.iterdir()):
        version.chmod(0o700)
        shutil.rmtree(version)
    shutil.rmtree(first.server.settings.adapter_folder / "v1")
    async with undisturbed(first):
        assert await answered_by(first) == v1
    first.terminate()
    assert await first.wait_stopped() == 0

    second = await running_server()  # ready, though one adapter is not
    async with undisturbed(second):
        answer = await second.client.post("/generate", json={"prompt": "a", "adapter": "risk"})
        assert (answer.status_code, refusal(answer)["code"]) == (503, "adapter_unavailable")
        shown = (await second.client.get("/admin/adapters/risk")).json()
        assert (shown["desired"], shown["settled"]) == (v1, False)
        assert str(store) not in str(shown)
        mended = await load(second, second.make_adapter("v1", seed=1))
        assert mended.status_code == 201
        assert await answered_by(second) == v1


def test_b5_24_a_log_that_cannot_be_written_ends_nothing(clean_environment, tmp_path):
    """/dev/full: every write fails, as on a disk that is full."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "hotswap.py", "serve", "--engine", "scripted", "--port", str(port)]
    command += ["--home", str(tmp_path / "home"), "--log-level", "debug"]
    with Path("/dev/full").open("wb") as full:
        process = subprocess.Popen(command, cwd=PROJECT, stdout=full, stderr=full)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=patient(10)) as client:
            wait_ready(client, process)
            for _ in range(20):
                assert client.post("/generate", json={"prompt": "a", "max_tokens": 1}).status_code == 200
            assert client.get("/nowhere").status_code == 404
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_SECONDS) == 0
    finally:
        process.kill()
        process.wait(STOP_SECONDS)


def wait_ready(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    pytest.fail(f"the server is not ready (exit code {process.poll()})")
