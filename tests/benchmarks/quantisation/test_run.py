"""From a base and its forms on disk to the report, on tiny weights and servers with a scripted engine."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adapters.errors import EvaluationError
from adapters.tiny import make_tiny_adapter
from bases.lineage import BaseStep, Lineage, ParentBase, write_lineage
from bases.passport import Passport, read_passport
from bases.resolve import resolve_base
from bases.tiny import make_tiny_base
from benchmarks.errors import PlanError
from benchmarks.quantisation import commands, fleet, made
from benchmarks.quantisation.__main__ import app
from benchmarks.quantisation.errors import MadeBaseError, RecordError
from benchmarks.quantisation.made import Maker, recovery_name
from benchmarks.quantisation.plan import ReportPlan
from benchmarks.quantisation.run import run_report
from benchmarks.quantisation.served import Served
from benchmarks.quantisation.task import kept_share, read_task
from benchmarks.server import ServerSpec
from tests.benchmarks.quantisation.example_report import W4, task

NOTES = Path(__file__).parents[3] / "examples" / "risk" / "test.jsonl"


def scripted(served: Served, *_: object, folder: Path, **__: object) -> ServerSpec:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HOTSWAP_")}
    command = [sys.executable, "-m", "hotswap", "serve", "--engine", "scripted", "--port", "{port}"]
    home = ("--home", str(folder / served.file_name))
    return ServerSpec(served.name, served.title, "scripted", "/readyz", [*command, *home], environment)


class Tiny:
    """A base with a form that has its lineage, and an adapter."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.base = make_tiny_base(root / "tiny")
        self.adapter = make_tiny_adapter(
            root / "risk", linear_modules=self.passport(self.base).facts.linear_modules, base_name="tiny"
        )
        self.form = self.quantised(root / "tiny-w4", self.base)
        self.notes = root / "notes.jsonl"
        self.notes.write_text("\n".join(NOTES.read_text(encoding="utf-8").splitlines()[:12]) + "\n")

    def passport(self, folder: Path) -> Passport:
        base = resolve_base(str(folder), home=self.home, progress=lambda _: None)
        return read_passport(base, home=self.home, progress=lambda _: None)

    def quantised(
        self, folder: Path, original: Path, scheme: str = W4, *, moves_scales: bool = False
    ) -> Path:
        """The same weights, said to be rounded ones."""
        shutil.copytree(original, folder)
        parent = ParentBase(fingerprint=self.passport(original).fingerprint, name="tiny")
        step = BaseStep(kind="quantise", parent=parent, scheme=scheme, moves_scales=moves_scales)
        write_lineage(folder, Lineage(steps=(step,)))
        return folder

    def plan(self, out: Path, *parts: str) -> ReportPlan:
        return ReportPlan(
            base=str(self.base),
            adapter=str(self.adapter),
            data=self.notes,
            calibration=(),
            label_pattern=r"Risk: (\d)",
            schemes=(W4,),
            dtypes=("float32",),
            parts=(*parts, "report"),
            label="native",
            isa=None,
            home=self.home,
            out=out,
            made={"merged/original": self.base, f"merged/{W4}": self.form, f"plain/{W4}": self.form},
            concurrency=(1,),
            rounds=1,
            requests=2,
            max_tokens=4,
            settle_seconds=0.0,
            ready_seconds=120.0,
            task_examples=12,
            task_tokens=4,
            recover=False,
        )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("tiny"))


def test_servers_are_measured_once_and_reported_from_the_records(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(fleet, "spec_of", scripted)
    plan = tiny.plan(tmp_path, "make", "memory", "speed")
    report = run_report(plan, command="the command", say=lambda _: None)
    figures = report.machines["native"]
    assert [each.served for each in figures.memory] == ["float32", f"{W4}/float32"]
    assert [each.says_paris for each in figures.capital] == [False, False]
    assert figures.speed is not None
    assert [cell.served for cell in figures.speed.cells] == ["float32", f"{W4}/float32"]
    assert figures.speed.cells[1].throughput_ratio is not None

    monkeypatch.setattr(fleet, "spec_of", None)  # nothing is started a second time
    assert run_report(plan, command="the command", say=lambda _: None).machines == report.machines
    only = replace(plan, parts=("report",), schemes=("fp8-dynamic",))
    assert run_report(only, command="the command", say=lambda _: None).made == report.made


def test_a_gateway_that_refuses_a_task_ends_the_run_and_keeps_what_was_measured(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(fleet, "spec_of", scripted)
    asked = []

    def refuses(*_: object, served: str, **__: object) -> None:
        asked.append(served)
        raise EvaluationError("the gateway is full")

    monkeypatch.setattr("benchmarks.quantisation.bench.ask_task", refuses)
    plan = tiny.plan(tmp_path, "make", "task")
    with pytest.raises(EvaluationError, match="the gateway is full"):
        run_report(plan, command="", say=lambda _: None)
    assert asked == ["float32"]
    kept = run_report(replace(plan, parts=("report",)), command="", say=lambda _: None)
    assert len(kept.machines["native"].capital) == 2


def test_a_report_of_nothing_is_an_error(tiny, tmp_path):
    with pytest.raises(RecordError, match="holds nothing to report on"):
        run_report(tiny.plan(tmp_path), command="", say=lambda _: None)


def test_a_form_of_another_base_is_refused(tiny, tmp_path):
    other = make_tiny_base(tmp_path / "other", seed=7)
    stranger = tiny.quantised(tmp_path / "stranger", other)
    plan = replace(tiny.plan(tmp_path), made={"merged/original": tiny.base, f"plain/{W4}": stranger})
    with pytest.raises(MadeBaseError, match="stranger was not made by quantising"):
        Maker(plan, None, lambda _: None).make(may_make=False)


def test_a_form_of_another_scheme_is_refused(tiny, tmp_path):
    wrong = tiny.quantised(tmp_path / "wrong", tiny.base, "int8-w8a8")
    plan = replace(tiny.plan(tmp_path), made={"merged/original": tiny.base, f"plain/{W4}": wrong})
    with pytest.raises(MadeBaseError, match="was made with 'int8-w8a8', not with 'gptq-w4a16'"):
        Maker(plan, None, lambda _: None).make(may_make=False)


def test_a_form_that_adapters_do_not_fit_is_said_to_be_one(tiny, tmp_path):
    smooth = tiny.quantised(tmp_path / "smooth", tiny.base, moves_scales=True)
    plan = replace(
        tiny.plan(tmp_path),
        made={"merged/original": tiny.base, f"merged/{W4}": smooth, f"plain/{W4}": smooth},
    )
    found = Maker(plan, None, lambda _: None).make(may_make=False)
    assert [form.takes_adapters for form in found.plain] == [True, False]
    assert "moves scales between layers" in found.notes[0]


def test_what_is_missing_is_made_in_the_place_of_the_commands(tiny, tmp_path, monkeypatch):
    ran: list[tuple[str, ...]] = []

    def make(*arguments: str, home: Path, say: object) -> float:
        ran.append(arguments)
        out = Path(arguments[arguments.index("--out") + 1])
        if arguments[0] == "quantize":
            tiny.quantised(out, Path(arguments[1]))
        else:
            shutil.copytree(tiny.base, out)
        return 12.5

    monkeypatch.setattr(made, "hotswap", make)
    plan = replace(tiny.plan(tmp_path), made={}, recover=True, home=tmp_path / "home")
    with pytest.raises(MadeBaseError, match=r"tiny-risk; add `make` to --parts"):
        Maker(plan, None, lambda _: None).make(may_make=False)
    found = Maker(plan, None, lambda _: None).make(may_make=True)
    assert [arguments[0] for arguments in ran] == ["adapters", "quantize", "quantize"]
    place = tmp_path / "home" / "bases" / "made"
    assert {Path(form.folder) for form in (*found.plain[1:], *found.merged)} == {
        place / f"tiny-{W4}",
        place / "tiny-risk",
        place / f"tiny-risk-{W4}",
    }
    assert found.plain[1].seconds == 12.5
    assert ran[1][-1] == recovery_name("tiny", W4)
    assert "--recover" not in ran[2]
    # Nothing was published, so that recovery is a note and no figure.
    assert found.recovered == {}
    assert "did not pay" in found.notes[0]
    again = Maker(plan, found, lambda _: None).make(may_make=False)
    assert again.plain[1].seconds == 12.5


def test_a_command_that_fails_is_shown_with_its_last_words(tmp_path):
    with pytest.raises(MadeBaseError, match=r"(?s)exit code 1:.*There is no base 'nowhere'"):
        commands.hotswap("quantize", "nowhere", home=tmp_path, say=lambda _: None)


def test_the_kept_share_is_of_pairs():
    original, ours = task("plain", "a", "risk", "1110"), task("plain", "b", "risk", "1100")
    kept = kept_share(ours, original)
    assert kept is not None
    assert kept.value == pytest.approx(2 / 3)
    assert kept.low is not None
    assert kept.low <= kept.value <= (kept.high or 0)
    assert kept_share(ours, task("plain", "a", "risk", "11")) is None
    assert kept_share(ours, task("plain", "a", "risk", "0000")) is None


def test_notes_are_read_with_their_labels():
    found = read_task(NOTES, label_pattern=r"Risk: (\d)", limit=40)
    assert len(found.questions) == len(found.labels) == 40
    assert set(found.labels) <= set("012345")
    first = found.rule.find("Reasons: none. Risk: 3")
    assert first is not None
    assert first.label == "3"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--schemes", "int3"], "--schemes int3: choose from gptq-w4a16"),
        (["--schemes", ""], "--schemes is empty"),
        (["--parts", "speed,cleaning"], "--parts cleaning"),
        (["--dtypes", "float8"], "--dtypes float8"),
        (["--cpu-isa", "sse2"], "--cpu-isa sse2"),
        (["--concurrency", "1,x"], "not a list of numbers"),
        (["--concurrency", "0"], "not between 1 and"),
        (["--data", "no/such/file.jsonl"], "there is no file"),
        (["--made", "merged/original"], "not of the form NAME=FOLDER"),
        (["--made", "merged/original=/no/such/folder"], "there is no folder"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_starts(options, reason, tmp_path):
    done = CliRunner().invoke(app, [*options, "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, PlanError)
    assert reason in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_a_missing_base_or_adapter_is_one_message(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HOTSWAP_HOME", str(tiny.home))
    common = ["--data", str(tiny.notes), "--out", str(tmp_path / "out"), "--adapter"]
    done = CliRunner().invoke(app, [*common, "nobody", "--base", str(tiny.base)])
    assert isinstance(done.exception, MadeBaseError)
    assert "There is no adapter 'nobody'" in str(done.exception)
    done = CliRunner().invoke(app, [*common, str(tiny.adapter), "--base", "nowhere"])
    assert "There is no base 'nowhere'" in str(done.exception)


def test_the_command_ends_with_one_when_it_cannot_measure(tiny, tmp_path):
    import subprocess

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.quantisation",
            "--parts",
            "report",
            "--out",
            str(tmp_path / "out"),
        ],
        env={**os.environ, "HOTSWAP_HOME": str(tiny.home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("quantisation: ")
    assert "Traceback" not in done.stderr


def test_records_are_json_that_others_can_read(tiny, tmp_path):
    plan = replace(tiny.plan(tmp_path), parts=("make", "report"))
    run_report(plan, command="", say=lambda _: None)
    raw = json.loads((tmp_path / "made.json").read_text())
    assert raw["made"]["figures"]["plain"][1]["scheme"] == W4
