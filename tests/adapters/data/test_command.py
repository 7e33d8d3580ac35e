"""`hotswap data`, as it is typed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from adapters.data.command import data_app
from adapters.data.settings import DataSettings
from adapters.errors import DataError
from bases.errors import BaseNotFoundError
from bases.tiny import make_tiny_base
from tests.adapters.data.test_prepare import notes

WIDE = {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}


def run(*arguments: object) -> Any:
    return CliRunner().invoke(data_app, list(map(str, arguments)), env=WIDE)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


def test_inspect_shows_the_funnel_lengths_labels_and_the_mask(write, base):
    rows = notes()
    rows[1]["prompt"] += " bob@example.com"
    rows.append(rows[2])
    path = write("a.jsonl", rows)
    answer = run("inspect", path, "--base", base, "--chat", "on", "--samples", "2")
    assert answer.exit_code == 0, answer.output
    text = answer.stdout
    assert re.search(r"exact duplicates +41 +1 +40", text)
    assert "train 36, validation 4, test 0" in text
    assert "Removed: exact duplicates" in text
    assert "Length in tokens: median" in text
    assert text.count("tokens learned") == 2
    assert re.search(r"⟦answer \d+<\|im_end\|>⟧", text)
    assert "personal data: mail b***m" in text
    assert "bob@example.com" not in text
    assert "\x1b" not in text


def test_inspect_looks_for_the_base_before_it_reads_the_data(write):
    answer = run("inspect", write("a.jsonl", notes()), "--base", "./no-such-base")
    assert isinstance(answer.exception, BaseNotFoundError)
    assert "Funnel" not in answer.output


def test_inspect_counts_characters_without_a_base(write):
    answer = run("inspect", write("a.jsonl", notes()), "--base", "none", "--no-outliers")
    assert answer.exit_code == 0, answer.output
    assert "Length in characters" in answer.stdout
    assert "outliers" not in answer.stdout


def test_prepare_writes_a_folder_once(write, tmp_path):
    path, out = write("a.jsonl", notes()), tmp_path / "out"
    answer = run("prepare", path, "--out", out, "--test-share", "0.1", "--seed", "3")
    assert answer.exit_code == 0, answer.output
    assert f"{out / 'train.jsonl'}: 32 examples" in answer.stdout
    report = json.loads((out / "data_report.json").read_text())
    assert report["settings"]["seed"] == 3
    assert report["fingerprint"] in answer.stdout
    again = run("prepare", path, "--out", out)
    assert again.exit_code == 1
    assert isinstance(again.exception, DataError)
    assert "nothing is overwritten" in str(again.exception)


def test_prepare_looks_whether_it_can_write_before_it_reads_the_data(tmp_path):
    (tmp_path / "a file").touch()
    answer = run("prepare", tmp_path / "no-such-data.jsonl", "--out", tmp_path / "a file" / "out")
    assert isinstance(answer.exception, DataError)
    assert f"{tmp_path / 'a file' / 'out'}: cannot be written" in str(answer.exception)


def test_every_setting_is_an_option_of_both_commands():
    for command in ("inspect", "prepare"):
        text = run(command, "--help").output
        for name in DataSettings.model_fields:
            assert "--" + name.replace("_", "-") in text


def test_the_help_says_what_may_be_named():
    text = " ".join(run("inspect", "--help").output.split())
    assert "`task=PATH:weight`" in text
    assert "hotswap data inspect examples/risk/train.jsonl" in text


def test_a_bad_setting_is_refused_by_its_flag(write):
    answer = run("inspect", write("a.jsonl", notes()), "--columns", "prompt")
    assert isinstance(answer.exception, DataError)
    assert "--columns: 'prompt' is not of the form" in str(answer.exception)


def test_the_command_line_is_there_without_a_heavy_import():
    heavy = [
        "torch",
        "transformers",
        "datasets",
        "pandas",
        "sklearn",
        "pyarrow",
        "numpy",
        "ftfy",
        "phonenumbers",
    ]
    code = f"import sys, adapters.data.command; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
