"""`hotswap evaluate` from the outside: files in, table, report files and exit codes out."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from adapters.errors import AdapterNotFoundError, DataError, EvaluationError
from adapters.evaluation.answer import Answer
from adapters.evaluation.answerers.transformers_answerer import TransformersAnswerer
from adapters.evaluation.command import evaluate
from adapters.evaluation.labels import LabelRule
from adapters.evaluation.report import EvaluationReport
from adapters.manifest import build_manifest, write_manifest
from bases.errors import BaseNotFoundError
from tests.adapters.evaluation.conftest import PATTERN
from tests.full_disk import files_no_larger_than

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.fixture(autouse=True)
def home(
    clean_environment, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOTSWAP_HOME", str(folder))
    return folder


app = typer.Typer()
app.command("evaluate")(evaluate)
QUICK = ["--max-new-tokens", "4", "--bootstrap-samples", "100"]


def call(*arguments: object):
    return CliRunner().invoke(app, [*map(str, arguments), *QUICK], env={"COLUMNS": "120"})


def test_base_and_adapter_are_measured_and_reported(tiny_base, tiny_adapter, risk_file, tmp_path):
    page = tmp_path / "out" / "report.html"
    common = ["--base", tiny_base, "--adapter", tiny_adapter, "--label-pattern", PATTERN]
    result = call(risk_file, *common, "--false-alarm", "0-1:4-5", "--report", page)
    assert result.exit_code == 0, result.exception
    assert "Accuracy" in result.stdout
    assert "Perplexity" in result.stdout
    report = EvaluationReport.from_json(page.with_suffix(".json").read_bytes())
    assert report.num_examples == 6
    perplexity = report.figure("perplexity")
    assert perplexity is not None
    assert perplexity.base is not None
    assert perplexity.adapter is not None
    assert perplexity.base.value != perplexity.adapter.value
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert page.with_suffix(".md").read_text(encoding="utf-8").startswith("# Evaluation")
    assert dict(report.facts)["data"] == "held-out.jsonl"
    assert str(tmp_path) not in page.with_suffix(".json").read_text(encoding="utf-8")


def test_a_report_is_overwritten_only_by_force_and_before_any_work(tiny_base, risk_file, tmp_path):
    page = tmp_path / "report.html"
    page.with_suffix(".md").write_text("mine", encoding="utf-8")
    result = call(risk_file, "--base", "no-such-base", "--report", page)
    assert isinstance(result.exception, EvaluationError)
    assert "report.md" in str(result.exception)
    assert page.with_suffix(".md").read_text(encoding="utf-8") == "mine"
    assert not page.exists()
    forced = call(risk_file, "--base", tiny_base, "--report", page, "--force", "--metrics", "bleu")
    assert forced.exit_code == 0, forced.exception
    assert page.exists()
    assert page.with_suffix(".md").read_text(encoding="utf-8") != "mine"


@pytest.mark.parametrize("reported", [True, False], ids=["beside the report", "in the home"])
def test_an_evaluation_that_is_interrupted_goes_on_where_it_was(
    tiny_base, tiny_adapter, risk_file, tmp_path: Path, home: Path, monkeypatch, reported
):
    page = tmp_path / "out" / "report.html"
    given = [
        risk_file,
        "--base",
        tiny_base,
        "--adapter",
        tiny_adapter,
        "--batch-size",
        "2",
        "--metrics",
        "bleu",
    ]
    given += ["--report", page] if reported else []
    asked: list[int] = []
    answer_batch = TransformersAnswerer._answer_batch

    def interrupted(self: TransformersAnswerer, prompts: list, rule: LabelRule | None) -> list[Answer]:
        if len(asked) == 8:  # all of the base, and a batch of the adapter
            raise KeyboardInterrupt
        asked.extend(map(len, prompts))
        return answer_batch(self, prompts, rule)

    monkeypatch.setattr(TransformersAnswerer, "_answer_batch", interrupted)
    result = call(*given)
    assert result.exit_code != 0
    (kept,) = (path for root in (tmp_path, home) for path in root.rglob("*.partial.jsonl"))
    assert kept.parent == (page.parent if reported else home / "evaluations")
    assert f"8 answers are kept in {kept}" in result.stderr
    assert json.loads(kept.read_text().split("\n")[0])["partial"] is True

    asked.clear()
    result = call(*given)
    assert result.exit_code == 0, result.exception
    assert len(asked) == 1 + 4  # one of the base, to hear that it is still the same
    assert not kept.exists()
    if reported:
        facts = dict(EvaluationReport.from_json(page.with_suffix(".json").read_bytes()).facts)
        assert facts["resumed"] == "8 answers are those of an interrupted run"


def test_a_report_that_could_not_be_written_is_refused_before_any_work(tmp_path):
    (tmp_path / "a file").touch()
    page = tmp_path / "a file" / "report.html"
    result = call(tmp_path / "no-such-data.jsonl", "--base", "no-such-base", "--report", page, "--force")
    assert isinstance(result.exception, EvaluationError)
    assert f"the report {str(page)!r} cannot be written" in str(result.exception)


def test_an_adapter_of_another_base_is_refused_by_its_manifest(tiny_base, tiny_adapter, risk_file, tmp_path):
    folder = tmp_path / "risk" / "3f2a91c0"
    shutil.copytree(tiny_adapter, folder)
    manifest = build_manifest(folder, base_fingerprint="f" * 64, base_name="another", libraries={})
    write_manifest(folder, manifest)
    result = call(risk_file, "--base", tiny_base, "--adapter", folder, "--home", tmp_path / "home")
    assert isinstance(result.exception, EvaluationError)
    assert "'risk/3f2a91c0' was trained on 'another'" in str(result.exception)


def test_an_adapter_is_found_by_the_name_it_was_published_under(tiny_base, tiny_adapter, risk_file, tmp_path):
    shutil.copytree(tiny_adapter, tmp_path / "home" / "adapters" / "risk" / "3f2a91c0")
    given = ["--base", tiny_base, "--home", tmp_path / "home", "--metrics", "bleu"]
    for name in ("risk", "risk/3f2a91c0"):
        result = call(risk_file, *given, "--adapter", name)
        assert result.exit_code == 0, result.exception
        assert "adapter" in result.stdout


def test_a_report_that_finds_no_room_leaves_the_old_one(tiny_base, risk_file, tmp_path):
    page = tmp_path / "report.html"
    given = [risk_file, "--base", tiny_base, "--metrics", "bleu", "--report", page, "--force"]
    assert call(*given).exit_code == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with files_no_larger_than(100):
        result = call(*given)
    assert isinstance(result.exception, EvaluationError)
    assert "cannot be written: File too large; name another place" in str(result.exception)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("threshold", "code"),
    [("accuracy:0.95", 1), ("accuracy:0", 0), ("unreadable:0.5", 1), ("unreadable:1", 0), ("auc:0.1", 1)],
)
def test_a_missed_threshold_is_exit_code_1(tiny_base, risk_file, threshold, code):
    result = call(risk_file, "--base", tiny_base, "--label-pattern", PATTERN, "--fail-under", threshold)
    assert result.exit_code == code
    assert ("asked for" in result.stderr) == bool(code)


@pytest.mark.parametrize(
    ("given", "threshold", "part"),
    [
        (["--metrics", "bleu"], "exact_match:0.9", "'exact_match', which is not measured; there are bleu"),
        ([], "acuracy:0.9", "'acuracy', which is not measured; there are exact_match, "),
        ([], "accuracy:0.9", "give a --label-pattern that finds it"),
        (["--label-pattern", PATTERN], "misses:0.1", "'misses', which needs --false-alarm LOW:HIGH"),
    ],
)
def test_a_threshold_of_something_not_measured_is_refused_before_any_model_is_looked_for(
    risk_file, given, threshold, part
):
    result = call(risk_file, "--base", "no-such-base", *given, "--fail-under", threshold)
    assert isinstance(result.exception, EvaluationError)
    assert part in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "kind", "part"),
    [
        (["--metrics", "accuracy"], EvaluationError, "--label-pattern"),
        (["--adapter", "/no/such/folder"], EvaluationError, "there is no adapter folder"),
        (["--adapter", "no-such-one"], AdapterNotFoundError, "no adapter 'no-such-one'"),
        (["--label-pattern", r"Level: (\d)"], EvaluationError, "finds none"),
        (["--label-pattern", "("], EvaluationError, "no regular expression"),
        (["--url", "http://127.0.0.1:9"], EvaluationError, "start one with `hotswap serve`"),
        (["--columns", "nonsense"], DataError, "is not of the form"),
    ],
)
def test_errors_name_the_remedy(tiny_base, risk_file, arguments, kind, part):
    result = call(risk_file, "--base", tiny_base, *arguments)
    assert isinstance(result.exception, kind)
    assert part in str(result.exception)


def test_bad_data_and_a_missing_base_are_named(tiny_base, risk_file, tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    assert isinstance(call(empty, "--base", tiny_base).exception, DataError)
    assert isinstance(call(tmp_path / "none.jsonl", "--base", tiny_base).exception, DataError)
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"messages": [\n')
    failed = call(broken, "--base", tiny_base).exception
    assert "broken.jsonl:1" in str(failed)
    assert isinstance(call(risk_file, "--base", "no-such-base").exception, BaseNotFoundError)


async def test_a_gateway_is_measured_and_an_unknown_adapter_refused(
    running_server, tiny_base: Path, risk_file: Path, tmp_path: Path
):
    server = await running_server()
    source = server.make_adapter("risk-1")
    outcome = await server.gateway.adapters.load("risk", source, actor="test")
    page = tmp_path / "gateway.html"
    common = ["--url", server.url, "--base", tiny_base, "--label-pattern", PATTERN]
    result = await asyncio.to_thread(call, risk_file, *common, "--adapter", "risk", "--report", page)
    assert result.exit_code == 0, result.exception
    written = json.loads(page.with_suffix(".json").read_bytes())
    assert [one["name"] for one in written["systems"]] == ["scripted", str(outcome.managed.version)]
    perplexity = next(figure for figure in written["figures"] if figure["name"] == "perplexity")
    assert perplexity["adapter"]["value"] is None
    assert "the gateway reads a prompt as" in perplexity["adapter"]["note"]
    unknown = await asyncio.to_thread(call, risk_file, *common, "--adapter", "rusk")
    assert isinstance(unknown.exception, EvaluationError)
    assert "serves no adapter 'rusk'; it serves: risk" in str(unknown.exception)
