"""A whole suite on a gateway with the scripted engine."""

from __future__ import annotations

import json
import re

from typer.testing import CliRunner

from benchmarks.load.commands.app import bench_app
from benchmarks.load.suite import budget


def test_parts_on_one_gateway_make_one_report(monkeypatch, tmp_path):
    monkeypatch.setattr(budget, "MOST_SECONDS", 1.0)
    monkeypatch.setattr(budget, "LEAST_SECONDS", 0.5)
    given = ["--base", "scripted", "--adapters", "2", "--ranks", "8,16", "--concurrency", "1"]
    given += [
        "--parts",
        "closed,swap,idle",
        "--capacity",
        "10",
        "--answer-tokens",
        "4",
        "--out",
        str(tmp_path),
    ]
    done = CliRunner().invoke(bench_app, ["suite", *given])
    assert done.exit_code == 0, done.output
    assert re.search(r"\[2 of 3, 0\d:\d\d left\] with swaps", done.output)
    result = json.loads((tmp_path / "result.json").read_text())
    assert list(result["parts"]) == ["closed", "swap", "idle"]
    assert result["gateway"]["ranks"] == {"adapter-0": 8, "adapter-1": 16}
    assert result["partial"] is False
    rest, swapping = (run["swaps"] for run in result["parts"]["swap"]["runs"])
    assert not rest
    assert swapping
    assert result["parts"]["idle"]["conclusion"]["idle"]["memory_bytes"] > 0
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_too_few_minutes_are_refused_before_anything_is_started(tmp_path):
    done = CliRunner().invoke(bench_app, ["suite", "--minutes", "1", "--out", str(tmp_path / "out")])
    assert done.exit_code != 0
    assert "--minutes 1 is too short" in str(done.exception)
    assert not (tmp_path / "out").exists()
