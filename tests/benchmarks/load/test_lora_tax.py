"""What adapters cost, on a gateway with the scripted engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.load.bench import Bench
from benchmarks.load.client.target import Target
from benchmarks.load.commands.app import bench_app
from benchmarks.load.errors import LoadOptionError
from benchmarks.load.figures.slo import parse_slo
from benchmarks.load.lora_tax import TaxLimit, below, parse_plan, parse_tax_limit, tax_arms
from benchmarks.load.own_gateway import OwnGateway, own_gateway
from benchmarks.load.settings import load_bench_settings
from benchmarks.load.workload.arrivals import parse_arrivals
from benchmarks.load.workload.assignment import parse_assignment
from benchmarks.load.workload.lengths import parse_lengths
from benchmarks.load.workload.prompt_source import PromptSource
from benchmarks.load.workload.schedule import Load

PLAN = parse_plan("1,4", "1,32")
SHORT = ["--seconds", "0.6", "--warmup-seconds", "0.2", "--answer-tokens", "4", "--rounds", "1"]


def run(*arguments: str) -> Any:
    return CliRunner().invoke(bench_app, ["lora-tax", *arguments])


def test_limits_are_for_one_concurrency_or_for_all() -> None:
    assert parse_tax_limit("4@32:0.90", PLAN) == TaxLimit(4, 32, 0.9)
    assert parse_tax_limit("4:0.9", PLAN) == TaxLimit(4, None, 0.9)


@pytest.mark.parametrize("text", ["", "4", "4@32", "four:0.9", "4@x:0.9", "4:0", "4:nan", "8:0.9", "4@8:0.9"])
def test_a_limit_that_means_nothing_or_is_not_measured_is_refused(text: str) -> None:
    with pytest.raises(LoadOptionError, match="--fail-below"):
        parse_tax_limit(text, PLAN)


@pytest.mark.parametrize(
    ("counts", "concurrency"), [("", "1"), ("0", "1"), ("1,1", "1"), ("1", "x"), ("1", "-2")]
)
def test_counts_and_concurrency_are_whole_numbers(counts: str, concurrency: str) -> None:
    with pytest.raises(LoadOptionError, match="--co"):
        parse_plan(counts, concurrency)


def test_a_ratio_that_is_too_low_or_missing_is_named() -> None:
    figures = [
        {"arm": arm, "metric": metric, "ratio": {"median": median}}
        for arm, metric, median in (
            ("4 adapters @1", "output_tok_s", 0.95),
            ("4 adapters @32", "output_tok_s", 0.85),
            ("4 adapters @1", "tpot_p50", 0.1),
        )
    ]
    conclusion = {"arms": figures}
    assert below([TaxLimit(4, 1, 0.9)], conclusion, PLAN) == []
    (slow,) = below([TaxLimit(4, None, 0.9)], conclusion, PLAN)
    assert "4 adapters @32: 0.850" in slow
    (lacking,) = below([TaxLimit(1, 1, 0.1)], conclusion, PLAN)
    assert "1 adapter @1" in lacking


@pytest.fixture(scope="module")
def gateway() -> Iterator[OwnGateway]:
    with own_gateway("scripted", adapters=3) as up:
        yield up


def test_base_and_mixed_traffic_take_turns_on_a_running_server(gateway: OwnGateway, tmp_path: Path) -> None:
    given = ["--url", gateway.url, "--counts", "1,3", "--concurrency", "2", "--out", str(tmp_path)]
    done = run(*given, *SHORT, "--fail-below", "3@2:9")
    assert done.exit_code == 1  # nothing is nine times as fast as the base
    assert "3 adapters @2:" in done.output
    result = json.loads((tmp_path / "result.json").read_text())
    asked = {run["name"].split(",")[0]: set(run["adapters"]) for run in result["runs"]}
    assert asked == {
        "base @2": {"base"},
        "1 adapter @2": {"adapter-0"},
        "3 adapters @2": set(gateway.adapters),
    }
    assert result["load"]["arrivals"] == "closed:2"
    ratios = {f["arm"]: f["ratio"] for f in result["conclusion"]["arms"] if f["metric"] == "output_tok_s"}
    assert ratios["base @2"] is None
    assert ratios["3 adapters @2"]["count"] == 1
    assert gateway.url in (tmp_path / "report.md").read_text()


def test_no_two_arms_send_the_same_texts() -> None:
    target = Target("http://127.0.0.1:9", "generate", "base", ("a", "b", "c", "d"), 4096, 0)
    lengths = parse_lengths("64", option="--prompt-tokens")
    mix = parse_assignment("uniform")
    load = Load(parse_arrivals("closed:1"), lengths, lengths, mix, target.adapters)
    bench = Bench(load_bench_settings(), target, load, PromptSource(seed=1), parse_slo("chat"))
    arms = tax_arms(bench, PLAN)
    sources = [arm.bench.prompts for arm in arms]
    assert len({source.prompt(0, 64) for source in sources}) == len(arms) == 6
    assert {len(source.prompt(0, 64).split()) for source in sources} == {64}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--counts", "1,8"], "more than the 3 adapters"),
        (["--counts", "1", "--base", "tiny"], "leave out the one or the other"),
        (["--counts", "1", "--workers", "2", "--concurrency", "1"], "cannot be dealt out"),
        (["--counts", "1", "--adapters", "none"], "more than the 0 adapters"),
    ],
)
def test_what_cannot_be_measured_is_said_and_leaves_no_report(
    gateway: OwnGateway, tmp_path: Path, more: list[str], said: str
) -> None:
    done = run("--url", gateway.url, "--out", str(tmp_path / "out"), *more)
    assert done.exit_code == 1
    assert said in str(done.exception)
    assert not (tmp_path / "out").exists()
