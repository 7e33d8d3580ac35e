"""`hotswap train` at the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import hotswap
from adapters.errors import DataError, TrainingSettingsError
from serve.errors import ServeError


def train(*arguments: str) -> Any:
    return CliRunner().invoke(hotswap.app, ["train", *arguments], catch_exceptions=False)


def short(base: Path, home: Path) -> list[str]:
    given = {"base": base, "home": home, "device": "cpu", "precision": "fp32", "max-steps": 2, "rank": 4}
    given |= {"batch-size": 8, "learning-rate": 0.005, "probe-prompts": 2}
    return [part for name, value in given.items() for part in (f"--{name}", str(value))]


def test_a_run_prints_its_figures_and_what_to_type_next(
    tiny_base: Path, examples_file: Path, tmp_path: Path
) -> None:
    result = train(str(examples_file), "--name", "risk", *short(tiny_base, tmp_path))
    assert result.exit_code == 0
    (published,) = (tmp_path / "adapters" / "risk").iterdir()
    assert "validation perplexity" in result.stdout
    assert f"Next: hotswap adapters load risk risk/{published.name}\n" in result.stdout
    whole = re.sub(r"[\s\u2502]", "", result.stdout)
    assert str(published) in whole  # folded at the edge of the screen, not cut off
    manifest = json.loads((published / "hotswap.json").read_text())
    assert manifest["training"]["data"]["sources"] == [examples_file.name]
    assert str(tmp_path) not in json.dumps(manifest)  # no path of this machine leaves it


def test_help_shows_an_example_and_the_defaults() -> None:
    result = train("--help")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "hotswap train data.jsonl --name risk" in text
    assert "--max-minutes" in text and "--near-duplicates" in text


def test_without_data_the_message_shows_how(tmp_path: Path) -> None:
    with pytest.raises(TrainingSettingsError, match=r"hotswap train data\.jsonl --name risk"):
        train("--name", "risk", "--home", str(tmp_path))


def test_a_missing_file_is_named(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.jsonl"):
        train(str(tmp_path / "nowhere.jsonl"), "--name", "risk", *short(tiny_base, tmp_path))


def test_a_gateway_that_does_not_answer_is_noticed_before_the_long_part(
    tiny_base: Path, examples_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(ServeError, match="no gateway answers"):
        train(
            str(examples_file),
            "--name",
            "risk",
            "--push",
            "http://127.0.0.1:9",
            *short(tiny_base, tmp_path),
        )
    assert not (tmp_path / "runs").exists()


def test_the_command_line_starts_without_loading_torch() -> None:
    import subprocess
    import sys

    code = "import sys, hotswap; print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"
