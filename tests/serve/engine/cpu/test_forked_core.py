"""The engine process forked off a server: its environment, its place in vLLM, and that all ends together."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import psutil
import pytest

from serve.engine.cpu import forked_core
from serve.engine.cpu.forked_core import THREADS_VARIABLE
from tests.patience import patient

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="fork servers are used on Linux alone")
PROJECT = Path(__file__).resolve().parents[4]
FAMILY = "tests.serve.engine.cpu.forked_family"


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is started or kept by this process."""
    monkeypatch.setattr(forked_core, "_is_started", False)
    monkeypatch.setattr(forkserver, "ensure_running", lambda: None)
    monkeypatch.setattr(multiprocessing, "set_forkserver_preload", lambda _: None)
    monkeypatch.setenv("LD_PRELOAD", os.environ.get("LD_PRELOAD", ""))


@pytest.mark.parametrize("threads", ["auto", "nobind", "0-3", "0,1|2,3", ""])
def test_threads_that_vllm_has_to_work_out_leave_it_alone(
    no_server: None, monkeypatch: pytest.MonkeyPatch, threads: str
) -> None:
    monkeypatch.setenv(THREADS_VARIABLE, threads)
    assert not forked_core.start_server()


def test_another_vllm_is_left_alone(no_server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREADS_VARIABLE, "0")
    monkeypatch.setattr(forked_core, "VERIFIED_VLLM_VERSIONS", frozenset({"0.0.1"}))
    assert not forked_core.start_server()


def test_the_servers_environment_has_what_is_read_while_libraries_load(
    no_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(THREADS_VARIABLE, "0,2,4")
    monkeypatch.setenv("LD_PRELOAD", "/opt/libtcmalloc.so.4")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert forked_core.start_server()
    assert os.environ["OMP_NUM_THREADS"] == "3"
    libraries = os.environ["LD_PRELOAD"].split(":")
    assert libraries[-1] == "/opt/libtcmalloc.so.4"  # what was asked for stays, and is not loaded twice
    assert [Path(path).name.partition(".")[0].partition("-")[0] for path in libraries[:-1]] == ["libgomp"]
    assert all(Path(path).is_file() for path in libraries[:-1])


def test_a_count_of_threads_that_was_asked_for_stays(
    no_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(THREADS_VARIABLE, "0,1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert forked_core.start_server()
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_vllm_makes_its_processes_itself_where_no_server_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    import vllm.v1.engine.utils as engine_utils

    original = engine_utils.get_mp_context
    monkeypatch.setattr(engine_utils, "get_mp_context", original)
    monkeypatch.setattr(forked_core, "_is_started", False)
    forked_core.install()
    assert engine_utils.get_mp_context is original


def test_vllm_takes_the_servers_context_where_one_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    import vllm.v1.engine.utils as engine_utils

    asked: list[str] = []
    monkeypatch.setattr(engine_utils, "get_mp_context", lambda: asked.append("vLLM's own"))
    monkeypatch.setattr(forked_core, "_is_started", True)
    forked_core.install()
    forked_core.install()
    context = engine_utils.get_mp_context()
    assert asked == ["vLLM's own"]  # once: it was not wrapped twice
    assert context.Process(target=print, name="EngineCore", kwargs={})._start_method == "forkserver"


Family = tuple[subprocess.Popen[str], dict[str, Any], psutil.Process, psutil.Process]


@contextlib.contextmanager
def family() -> Iterator[Family]:
    """A gateway that has forked an engine: the process, what the engine said, and the engine and its server."""
    parent = subprocess.Popen(
        [sys.executable, "-m", FAMILY],
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        env={**os.environ, THREADS_VARIABLE: "0", "SET_EARLY": "1", "SET_LATE": ""},
    )
    assert parent.stdout is not None
    said = json.loads(parent.stdout.readline())
    engine = psutil.Process(said["pid"])
    server = psutil.Process(engine.ppid())
    try:
        yield parent, said, engine, server
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
        for process in (engine, server):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def test_a_forked_engine_has_the_gateways_environment_of_then_and_ends_with_it() -> None:
    with family() as (parent, said, engine, server):
        assert said["late"] == "set after the server was started"
        assert said["early"] is None
        assert " ".join(engine.cmdline()).strip() == "VLLM::EngineCore"  # what tells it from its server
        assert said["imported"]  # by the server, before the fork
        assert server.ppid() == parent.pid
        parent.kill()
        _, alive = psutil.wait_procs([engine, server], timeout=patient(10.0))
        assert alive == []


def test_a_forked_engine_ends_with_its_server() -> None:
    with family() as (parent, _, engine, server):
        server.kill()
        _, alive = psutil.wait_procs([engine], timeout=patient(10.0))
        assert alive == []
        assert parent.poll() is None
