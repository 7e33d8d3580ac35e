"""Whose processor time is known to belong to a measurement."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from benchmarks.load.figures.disturbance import read_use


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_a_server_of_this_machine_is_found_by_its_port(port: int) -> None:
    before, after = read_use(f"http://127.0.0.1:{port}"), read_use(f"http://localhost:{port}")
    assert before is not None
    assert after is not None
    assert before.known_seconds > 0
    assert 0.0 <= before.foreign_share(after) <= 1.0


def test_nothing_is_said_of_others_where_the_server_cannot_be_told_from_them(port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        unused = other.getsockname()[1]
    assert unused != port
    assert read_use(f"http://127.0.0.1:{unused}") is None


def test_a_server_elsewhere_leaves_this_machine_to_the_client() -> None:
    assert read_use("http://192.0.2.1:8000") is not None
