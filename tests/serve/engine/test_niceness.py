"""The engine's process makes way for the gateway's, and nobody else does."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.queues import SimpleQueue

import pytest

from serve.engine.niceness import NICENESS_VARIABLE, make_way


def _tell(told: SimpleQueue[tuple[int, int, int]]) -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    make_way()
    once = os.getpriority(os.PRIO_PROCESS, 0)
    make_way()
    told.put((before, once, os.getpriority(os.PRIO_PROCESS, 0)))


def in_a_child(monkeypatch: pytest.MonkeyPatch, asked: str | None) -> tuple[int, int, int]:
    """A child's niceness before, after one call, and after two."""
    if asked is None:
        monkeypatch.delenv(NICENESS_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(NICENESS_VARIABLE, asked)
    context = multiprocessing.get_context("spawn")
    told: SimpleQueue[tuple[int, int, int]] = context.SimpleQueue()
    child = context.Process(target=_tell, args=(told,), name="EngineCore")
    child.start()
    found = told.get()
    child.join()
    return found


def test_a_child_takes_what_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    before, once, twice = in_a_child(monkeypatch, "19")
    assert before < 19
    assert once == twice == 19


@pytest.mark.parametrize("asked", [None, "0", "", "much"])
def test_without_a_wish_it_stays_where_it_is(monkeypatch: pytest.MonkeyPatch, asked: str | None) -> None:
    before, once, twice = in_a_child(monkeypatch, asked)
    assert before == once == twice


def test_the_gateway_itself_does_not_make_way(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    monkeypatch.setenv(NICENESS_VARIABLE, "19")
    make_way()
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
