"""What a report measures, and what it refuses to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.errors import PlanError
from benchmarks.quantisation.plan import ReportPlan


def plan(folder: Path, **changes: Any) -> ReportPlan:
    given: dict[str, Any] = {
        "base": "default",
        "adapter": "risk",
        "data": folder / "notes.jsonl",
        "calibration": (),
        "label_pattern": r"Risk: (\d)",
        "schemes": ("gptq-w4a16",),
        "dtypes": ("float32",),
        "parts": ("speed",),
        "label": "native",
        "isa": None,
        "home": folder,
        "out": folder / "out",
        "made": {},
    }
    given["data"].touch()
    return ReportPlan(**{**given, **changes})


def test_each_worker_has_its_share_of_requests_and_never_fewer_than_three(tmp_path):
    found = plan(tmp_path, concurrency=(1, 8, 32), requests=40)
    assert [found.measured_requests(number) for number in found.concurrency] == [40, 40, 96]
    found.check()


def test_everything_that_cannot_be_measured_is_listed(tmp_path):
    found = plan(tmp_path, parts=("sped",), concurrency=(0, 4, 4), rounds=0, requests=0, max_tokens=1)
    with pytest.raises(
        PlanError, match=r"--parts sped: .*concurrency 0 .*twice.*0 rounds.*0 requests.*1 tokens"
    ):
        found.check()


def test_speeds_of_another_load_are_other_figures(tmp_path):
    loads = {
        plan(tmp_path, **change).load for change in ({}, {"requests": 9}, {"rounds": 4}, {"max_tokens": 8})
    }
    assert len(loads) == 4
