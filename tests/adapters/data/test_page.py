"""docs/data.md says what the code does."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adapters.data.command import data_app
from adapters.data.example import Origin
from adapters.data.readers.formats import READERS
from adapters.data.readers.row import Row
from adapters.data.settings import DataSettings
from adapters.data.shapes import SHAPES, Shaper

PROJECT = Path(__file__).parents[3]
PAGE = (PROJECT / "docs" / "data.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", PAGE, re.DOTALL | re.MULTILINE)
    return [line.strip() for block in found for line in block.splitlines()]


@pytest.mark.parametrize("name", DataSettings.model_fields)
def test_every_setting_stands_in_the_table_as_the_class_has_it(name):
    info = DataSettings.model_fields[name]
    switch = "`on`" if info.default else "`off`"
    value = "" if info.default in (None, ()) else f"`{info.default}`"
    shown = switch if isinstance(info.default, bool) else value
    assert f"| `--{name.replace('_', '-')}` | {shown} | {info.description} |\n" in PAGE


def test_every_row_of_the_page_has_the_shape_of_its_place():
    examples = [
        Shaper().shape(Row(Origin("page", n), json.loads(line))) for n, line in enumerate(blocks("json"))
    ]
    assert [example.shape for example in examples] == [
        "chat", "chat", "chat", "chat", "completion", "chat", "text",
    ]  # fmt: skip
    assert len(SHAPES) == 5


def test_every_command_of_the_page_runs(tmp_path, monkeypatch):
    """As written, but without a base, whose tokens other tests look at."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(PROJECT / "examples")
    commands = blocks("sh")
    assert len(commands) == 5
    for line in commands:
        if line.startswith("printf"):
            subprocess.run(["/bin/sh", "-c", line], check=True)
            continue
        words = shlex.split(line)
        assert words[:2] == ["hotswap", "data"]
        extra = ["--base", "none"] if words[2] == "inspect" and "--base" not in words else []
        done = CliRunner().invoke(data_app, [*words[2:], *extra, "--no-outliers"])
        assert done.exit_code == 0, (line, done.output, done.exception)
    assert (tmp_path / "prepared" / "train.jsonl").is_file()


def test_every_format_and_switch_is_named():
    assert all(f"`{suffix}`" in PAGE for suffix in READERS)
    flags = set(re.findall(r"--(?:no-)?([a-z][a-z-]+)", PAGE))
    known = {name.replace("_", "-") for name in DataSettings.model_fields}
    assert flags <= known | {"base", "out"}
