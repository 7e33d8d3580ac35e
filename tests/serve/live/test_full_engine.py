"""A real engine that is full: the gateway's own requests are next, and what nobody sees is counted."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from bases.tiny import make_tiny_base
from tests.serve.live.full_engine import LONG
from tests.serve.live.live_server import REPOSITORY

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    base = make_tiny_base(tmp_path_factory.mktemp("full") / "base")
    command = [sys.executable, "-m", "tests.serve.live.full_engine", str(base)]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    read: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return read


def test_a_probe_goes_ahead_of_requests_that_came_before_it_and_wait(found: dict[str, Any]) -> None:
    order = found["order"]
    assert order[0] == "long-0"  # nobody is put out for it
    assert order.index("probe") < order.index("waiting-0")


def test_tokens_of_an_answer_that_nobody_has_seen_yet_are_counted(found: dict[str, Any]) -> None:
    assert LONG <= found["seen"] < 2 * LONG
    assert found["after"] == 0
