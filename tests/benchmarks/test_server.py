"""Servers that are started to be measured, and those that do not come up."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from benchmarks.errors import ServerStartError
from benchmarks.server import ServerSpec, running


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
