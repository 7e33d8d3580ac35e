"""Two results side by side."""

from __future__ import annotations

import json

import pytest

from benchmarks.load.comparison import broken, compare, parse_limit, reasons_against
from benchmarks.load.errors import LoadOptionError, ResultFileError
from benchmarks.load.result_file import SCHEMA, Measurement, read_measurement


def measurement(
    goodput: float = 2.0, ttft_p99: float | None = 0.5, *, valid: bool = True, **changes
) -> Measurement:
    figures = {
        "goodput_req_s": goodput,
        "ttft_seconds": None if ttft_p99 is None else {"p50": 0.1, "p99": ttft_p99},
        "counts": {"failed": 0},
    }
    fields = {
        "mode": "run",
        "command": "hotswap bench run",
        "target": {"base": "b", "context_tokens": 1},
        "load": {"arrivals": "closed:1", "url": "here"},
        "slo": {"name": "chat"},
        "surroundings": {"processor": "p", "cores": 2},
        "runs": [{"name": "closed:1", "valid": valid, "figures": figures}],
        "created_at": "2026-01-01",
        "conclusion": {},
    }
    return Measurement(**{**fields, **changes})


def test_a_change_is_relative_to_the_first():
    found = {one.metric: one.change for one in compare(measurement(2.0), measurement(1.9))}
    assert found["goodput"] == pytest.approx(-0.05)
    assert found["ttft_p99"] == 0.0
    assert found["failed"] is None


@pytest.mark.parametrize(
    ("limit", "second", "expected"),
    [
        ("goodput:-5%", measurement(1.95), False),
        ("goodput:-5%", measurement(1.8), True),
        ("goodput:-5%", measurement(3.0), False),
        ("ttft_p99:+10%", measurement(ttft_p99=0.54), False),
        ("ttft_p99:+10%", measurement(ttft_p99=0.6), True),
        ("ttft_p99:+10%", measurement(ttft_p99=None), True),
    ],
)
def test_a_limit_breaks_in_the_direction_that_is_worse(limit, second, expected):
    assert bool(broken([parse_limit(limit)], compare(measurement(), second))) is expected


@pytest.mark.parametrize("text", ["goodput", "goodput:5%", "goodput:x", "speed:-5%", "ttft_p99:-10%"])
def test_a_limit_that_means_nothing_is_refused(text):
    with pytest.raises(LoadOptionError, match="--fail-on"):
        parse_limit(text)


def test_what_speaks_against_a_comparison_is_said():
    other = measurement(valid=False, load={"arrivals": "closed:2"}, surroundings={"processor": "q"})
    assert reasons_against(measurement(), measurement()) == []
    assert reasons_against(measurement(), other) == [
        "the load differs",
        "the machine differs",
        "runs of the second result do not count: closed:1",
    ]


def test_results_without_a_run_in_common_are_not_compared():
    with pytest.raises(ResultFileError, match="no run in common"):
        compare(measurement(), measurement(runs=[{"name": "poisson:1"}]))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"schema": "other/1"}', json.dumps({"schema": SCHEMA, "mode": "x"})]
)
def test_a_file_that_is_no_result_is_refused_by_name(tmp_path, text):
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(ResultFileError, match=r"result\.json"):
        read_measurement(tmp_path)
