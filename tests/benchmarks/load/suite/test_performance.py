"""What was asked for is checked and completed before a gateway is started."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.load.errors import LoadOptionError
from benchmarks.load.settings import BenchSettings
from benchmarks.load.suite.performance import Wish

ASKED: dict[str, Any] = {
    "minutes": 9.0,
    "parts": "all",
    "base": "default",
    "adapters": 8,
    "ranks": "8,64",
    "concurrency": "1,8",
    "capacity_req_s": None,
    "flags": (),
}


def wish(settings: BenchSettings | None = None, **changes: Any) -> Wish:
    return Wish.parse(settings or BenchSettings(), **{**ASKED, **changes})


def test_the_gateway_has_a_slot_for_all_and_for_the_one_that_is_swapped():
    flags = wish(flags=("--max-num-seqs=4",)).flags
    assert {"--max-loras=9", "--max-lora-rank=64", "--max-cpu-loras=64"} <= set(flags)
    assert flags[-1] == "--max-num-seqs=4"


def test_who_would_wait_for_half_of_the_first_tokens_limit_is_refused():
    assert "--max-wait-seconds=0.3" in wish(BenchSettings(slo="content")).flags


def test_a_stuck_answer_costs_half_a_minute_unless_told_otherwise():
    assert wish().settings.timeout_seconds == 30.0
    assert wish(BenchSettings(timeout_seconds=99.0)).settings.timeout_seconds == 99.0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ranks": "8,9999"}, "--ranks"),
        ({"concurrency": "0"}, "--concurrency"),
        ({"parts": "nothing"}, "--parts"),
        ({"minutes": 1.0}, "--minutes"),
    ],
)
def test_what_means_nothing_is_refused(changes, told):
    with pytest.raises(LoadOptionError, match=told):
        wish(**changes)
