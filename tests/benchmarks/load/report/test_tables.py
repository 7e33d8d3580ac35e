"""What a report says in words and tables."""

from __future__ import annotations

from typing import Any

from benchmarks.load.report.tables import MOST_NAMES, findings_of
from benchmarks.load.result_file import Measurement


def measurement(*runs: dict[str, Any]) -> Measurement:
    return Measurement("run", "hotswap bench run", {}, {}, {}, {}, runs, "2026-11-27", {})


def run(name: str, *findings: tuple[str, str, bool]) -> dict[str, Any]:
    return {
        "name": name,
        "findings": [{"code": code, "message": text, "invalid": invalid} for code, text, invalid in findings],
    }


def test_what_speaks_against_many_runs_is_one_line_for_each_kind_and_the_worst_comes_first() -> None:
    runs = [run(f"r{i}", ("few", f"{i} requests were measured", False)) for i in range(MOST_NAMES + 2)]
    runs.append(run("late one", ("late", "the client was late", True), ("few", "9 requests", False)))
    assert findings_of(measurement(*runs)) == [
        (True, "late one: the client was late"),
        (False, f"r0; r1; r2; r3 and 3 more of {MOST_NAMES + 3} runs: e.g. 0 requests were measured"),
    ]


def test_of_a_single_run_the_words_alone_are_said() -> None:
    assert findings_of(measurement(run("only", ("few", "3 requests", False)))) == [(False, "3 requests")]
    assert findings_of(measurement(run("only"))) == []
