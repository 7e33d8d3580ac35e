"""What a suite leaves can be read by people, by `compare`, and anywhere."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from benchmarks.load.commands.app import bench_app
from benchmarks.load.comparison import compare
from benchmarks.load.errors import ResultFileError
from benchmarks.load.suite.report import render_markdown, render_page, write_report
from benchmarks.load.suite.result import SUITE_SCHEMA, read_comparable, write_suite
from benchmarks.load.suite.tables import headlines_of
from tests.benchmarks.load.suite.example import suite


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("suite")
    write_report(*suite(), where)
    return where


def test_the_page_needs_nothing_else_and_its_ids_are_unique(folder):
    page = (folder / "report.html").read_text()
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert {"closed", "open", "idle"} <= set(ids)


def test_the_same_is_in_page_and_markdown(folder):
    page, text = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    for words in ("Closed loop: base and adapters", "0.5 x capacity", "--max-loras=3", "goodput"):
        assert words in page
        assert words in text
    assert "Partial" not in page + text


def test_the_headlines_say_what_was_measured():
    found = {what: value for value, what in headlines_of(suite()[0])}
    assert found["tok/s of all adapters, 1 at once"] == "40"
    assert found["of the base's tok/s, 1 at once"] == "0.50"
    assert found["req/s with 100% within content"] == "5.0"  # at the higher rate TTFT is beyond the limit
    assert found["of a core at rest"] == "2.0%"
    assert found["memory, with 2 adapters"] == "2.0 GiB"


def test_every_request_is_there_with_its_part(folder):
    lines = [json.loads(line) for line in (folder / "requests.jsonl").read_text().splitlines()]
    assert {(line["part"], line["run"]) for line in lines} == {
        ("closed", "base @1, round 1"),
        ("closed", "2 adapters @1, round 1"),
        ("open", "0.5 x capacity"),
        ("open", "1 x capacity"),
    }


def test_a_part_that_is_missing_is_named_everywhere():
    whole, _ = suite(left_out={"overload": "it was interrupted"})
    result = replace(whole, parts={"idle": whole.parts["idle"]})  # which has no plots to wait for
    for text in (render_page(result, {}), render_markdown(result)):
        assert "Twice the capacity" in text
        assert "is missing: it was interrupted" in text
    assert result.to_dict()["partial"] is True


def test_suites_are_compared_part_by_part(folder):
    one = read_comparable(folder)
    found = {(each.run, each.metric): each.change for each in compare(one, one)}
    assert found["closed: base @1, round 1", "output_tok_s"] == 0.0
    assert found["open: 1 x capacity", "ttft_p99"] == 0.0
    assert found["idle: nobody asks", "idle_memory"] == 0.0


def test_a_run_that_is_missing_breaks_a_limit(folder, tmp_path):
    result, runs = suite()
    write_suite(result, runs, tmp_path)
    fields = json.loads((tmp_path / "result.json").read_text())
    del fields["parts"]["open"]
    (tmp_path / "result.json").write_text(json.dumps(fields))
    given = ["compare", str(folder), str(tmp_path)]
    assert CliRunner().invoke(bench_app, given).exit_code == 0
    limited = CliRunner().invoke(bench_app, [*given, "--fail-on", "goodput:-5%"])
    assert limited.exit_code == 1
    assert "open: 1 x capacity" in limited.output


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"schema": SUITE_SCHEMA})])
def test_a_file_that_holds_no_result_is_refused(tmp_path, text):
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(ResultFileError, match="result"):
        read_comparable(path)
