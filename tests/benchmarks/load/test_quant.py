"""Bases side by side, on gateways with the scripted engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest
from typer.testing import CliRunner

from adapters.tiny import make_tiny_adapter
from benchmarks.errors import ServerStartError
from benchmarks.gateway import ServedBase
from benchmarks.load.commands.app import bench_app
from benchmarks.load.quant import QuantPlan, measure_bases
from benchmarks.load.quant_bases import QuantBase, find_bases
from benchmarks.load.quant_fleet import Fleet
from benchmarks.load.report.quant_tables import base_tables
from benchmarks.load.settings import BenchSettings, load_bench_settings
from benchmarks.load.workload.prompt_source import PromptSource
from benchmarks.quantisation.figures import MemoryFigures
from serve.engine.scripted import SCRIPTED_TARGET

BASES = "scripted:float32,scripted:bfloat16"
SHORT = ["--seconds", "0.6", "--warmup-seconds", "0.2", "--answer-tokens", "4", "--concurrency", "2"]


def run(*arguments: str) -> Any:
    return CliRunner().invoke(bench_app, ["quant", *arguments])


def adapter(folder: Path, target: dict[str, tuple[int, int]]) -> str:
    make_tiny_adapter(folder, linear_modules=target, rank=4, alpha=8, targets=("q_proj", "v_proj"), seed=1)
    return str(folder)


def test_gateways_of_all_bases_take_turns_with_the_same_adapters_and_are_searched(tmp_path: Path) -> None:
    risk = adapter(tmp_path / "risk", dict(SCRIPTED_TARGET.linear_modules))
    out = tmp_path / "out"
    given = ["--bases", BASES, "--adapter-folders", risk, "--rounds", "1", "--most-runs", "1"]
    done = run(*given, *SHORT, "--out", str(out))
    assert done.exit_code == 0, done.output
    result = json.loads((out / "result.json").read_text())
    names = ["scripted float32", "scripted bfloat16"]
    compared = [run for run in result["runs"] if "round" in run["name"]]
    assert [run["name"] for run in compared] == [f"{name} @2, round 1" for name in names]
    assert all(set(run["adapters"]) == {"risk"} for run in result["runs"])
    # The bases get the same load; each has a closed loop and one rate of its own besides.
    assert len({run["schedule_sha256"] for run in compared}) == 1
    assert len(result["runs"]) == 2 + 2 * 2
    conclusion = result["conclusion"]
    assert [base["name"] for base in conclusion["bases"]] == names
    assert all(base["held"]["rate"] or base["held"]["failed_rate"] for base in conclusion["bases"])
    against = {f["arm"]: f["against"] for f in conclusion["arms"]}
    assert against == {"scripted float32 @2": None, "scripted bfloat16 @2": "scripted float32 @2"}
    text = (out / "report.md").read_text()
    for words in ("the original", "not measured", "Highest rate within the limits", "--max-lora-rank=8"):
        assert words in text


class FakeFleet:
    """Notes which gateways come up; `together` says which are up at once."""

    def __init__(self, bases: list[QuantBase], together: list[list[QuantBase]]) -> None:
        self.bases, self._together = bases, together
        self.came_up: list[list[str]] = []

    def groups(self, *, apart: bool) -> list[list[QuantBase]]:
        return [[base] for base in self.bases] if apart else self._together

    @contextmanager
    def up(self, group: list[QuantBase]) -> Iterator[dict[str, Any]]:
        self.came_up.append([base.name for base in group])
        yield {base.name: SimpleNamespace(url=f"http://{base.name}") for base in group}

    def memory(self, base: QuantBase, server: Any) -> MemoryFigures:
        del server
        return MemoryFigures(served=base.name)


@dataclass(frozen=True)
class FakeBench:
    settings: BenchSettings
    said: list[str]
    prompts: PromptSource = field(default_factory=lambda: PromptSource(seed=1))

    def run(self, name: str, *_: Any, seed: int, **__: Any) -> Any:
        self.said.append(f"{name} of {self.settings.url}, seed {seed}")
        return SimpleNamespace(figures={"output_tok_s": 1.0})


@pytest.mark.parametrize(
    ("apart", "came_up"),
    [(False, [["a", "b"]]), (True, [["a"], ["b"], ["b"], ["a"]])],
    ids=["together: once", "one at a time: anew in every round"],
)
def test_gateways_come_up_once_or_in_every_round_and_take_turns_alike(
    monkeypatch: pytest.MonkeyPatch, apart: bool, came_up: list[list[str]]
) -> None:
    bases = [
        QuantBase(name, ServedBase(name, {}, ()), "auto", None, None, "not measured", None) for name in "ab"
    ]
    fleet, said = FakeFleet(bases, [bases]), list[str]()
    monkeypatch.setattr("benchmarks.load.quant.prepare", lambda settings: FakeBench(settings, said))
    result = measure_bases(
        cast("Fleet", fleet),
        load_bench_settings(seed=7),
        QuantPlan((2,), rounds=2, attainment=0.99, most_runs=0),
        apart=apart,
        progress=lambda _: None,
        say=lambda _: None,
    )
    assert fleet.came_up == came_up
    assert said == [
        "a @2, round 1 of http://a, seed 7",
        "b @2, round 1 of http://b, seed 7",
        "b @2, round 2 of http://b, seed 8",
        "a @2, round 2 of http://a, seed 8",
    ]
    assert set(result.memory) == {"a", "b"}
    assert not result.found


def test_a_base_that_refuses_an_adapter_is_named_and_nothing_is_left_running(tmp_path: Path) -> None:
    other = adapter(tmp_path / "other", {"model.layers.0.self_attn.q_proj": (8, 8)})
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    done = run("--bases", BASES, "--adapter-folders", other, *SHORT, "--out", str(tmp_path / "out"))
    assert done.exit_code == 1
    assert "scripted float32 does not take other" in str(done.exception)
    assert not (tmp_path / "out").exists()
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--bases", "scripted"], "two bases or more"),
        (["--bases", "scripted,./nowhere"], "There is no base"),
        (["--bases", BASES, "--attainment", "0"], "--attainment"),
        (["--bases", BASES, "--concurrency", "0"], "--concurrency"),
        (["--bases", BASES, "--slo", "soon"], "--slo"),
        (["--bases", BASES, "--adapter-folders", "./nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_measured_is_said_before_a_server_starts(
    tmp_path: Path, more: list[str], said: str
) -> None:
    done = run(*more, "--out", str(tmp_path / "out"))
    assert done.exit_code == 1
    assert said in str(done.exception)
    assert "starting" not in done.output
    assert not (tmp_path / "out").exists()


def test_a_gateway_that_does_not_come_up_is_shown_with_its_reason(tmp_path: Path) -> None:
    bases = find_bases([("scripted", "float32"), ("scripted", "bfloat16")], tmp_path)
    fleet = Fleet(
        bases, adapters=(), kv_cache_gib=1.0, flags=("--no-such-flag",), folder=tmp_path, say=lambda _: None
    )
    with pytest.raises(ServerStartError, match="gateway of scripted float32"), fleet.up(bases[:1]):
        pass


def test_memory_decides_what_is_up_together_unless_told(tmp_path: Path) -> None:
    bases = find_bases([("scripted", "float32"), ("scripted", "bfloat16")], tmp_path)
    fleet = Fleet(bases, adapters=(), kv_cache_gib=1e6, flags=(), folder=tmp_path, say=lambda _: None)
    assert fleet.groups(apart=False) == fleet.groups(apart=True) == [[bases[0]], [bases[1]]]


def test_a_base_that_held_no_rate_has_no_ratio() -> None:
    base = {"scheme": None, "dtype": "auto", "disk_bytes": 1024**2, "weights_bytes": None, "pss_bytes": None}
    held = [{"rate": 4.0, "failed_rate": 5.0}, {"rate": None, "failed_rate": 1.0}]
    rows = [
        {**base, "name": name, "quality": "q", "held": found} for name, found in zip("ab", held, strict=True)
    ]
    sizes, rates = base_tables({"bases": rows, "search": {"attainment": 0.99, "most_runs": 4}})
    assert sizes.rows[0] == ("a", "none", "auto", "1", "not measured", "not measured", "q")
    assert rates.rows == (("a", "4.00", "5.00", "1.000", "q"), ("b", "none seen", "1.00", "-", "q"))
