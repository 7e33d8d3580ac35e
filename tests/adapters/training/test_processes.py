"""Several processes train what one would, whether each holds the whole model or a shard of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.training.outcome import TrainOutcome
from tests.adapters.training.conftest import quiet

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "deploy" / "accelerate"
SHORT = {"device": "cpu", "precision": "fp32", "max_steps": 4, "rank": 4, "batch_size": 8}
SETTINGS = {**SHORT, "learning_rate": 5e-3, "probe_prompts": 2}


@pytest.fixture(scope="module")
def alone(tiny_base: Path, examples_file: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainOutcome:
    """One process, every step in two parts."""
    from adapters.data.settings import DataSettings
    from adapters.data.source import DataSource
    from adapters.training.run import train_adapter
    from adapters.training.settings import load_train_settings

    home = tmp_path_factory.mktemp("alone")
    settings = load_train_settings(base=str(tiny_base), home=home, accumulation_steps=2, **SETTINGS)
    return train_adapter(
        [DataSource(examples_file)], name="risk", settings=settings, data_settings=DataSettings(), say=quiet
    )


def launch(config: Path, script: str, base: Path, data: Path, home: Path) -> str:
    """Run `hotswap train` in the processes that a configuration describes; its standard output."""
    flags = [part for key, value in SETTINGS.items() for part in (f"--{key.replace('_', '-')}", str(value))]
    # Any free port, so that two such tests do not meet.
    launcher = ["-m", "accelerate.commands.launch", "--config_file", str(config), "--main_process_port", "0"]
    places = ["--name", "risk", "--home", str(home), "--base", str(base)]
    done = subprocess.run(
        [sys.executable, *launcher, script, "train", str(data), *places, *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[:8000]
    return done.stdout


def expect_the_same(alone: TrainOutcome, home: Path, output: str) -> None:
    import torch
    from safetensors.torch import load_file

    assert output.count("validation perplexity") == 1  # one process speaks
    (folder,) = (home / "runs" / "risk").iterdir()
    assert json.loads((folder / "settings.json").read_text())["num_processes"] == 2
    outcome = json.loads((folder / "outcome.json").read_text())
    assert alone.after is not None
    assert outcome["after"]["perplexity"] == pytest.approx(alone.after.perplexity, rel=1e-4)
    assert outcome["tokens"] == alone.tokens
    (published,) = (home / "adapters" / "risk").iterdir()
    together = load_file(published / "adapter_model.safetensors")
    for name, value in load_file(alone.adapter_folder / "adapter_model.safetensors").items():
        torch.testing.assert_close(together[name], value, atol=1e-4, rtol=1e-3)


def test_two_processes_train_what_one_trains_in_two_parts(
    alone: TrainOutcome, tiny_base: Path, examples_file: Path, tmp_path: Path
) -> None:
    output = launch(CONFIGS / "multi-cpu.yaml", "hotswap.py", tiny_base, examples_file, tmp_path)
    expect_the_same(alone, tmp_path, output)


def test_two_processes_with_a_sharded_model_train_what_one_does(
    alone: TrainOutcome, tiny_base: Path, examples_file: Path, tmp_path: Path
) -> None:
    config = tmp_path / "fsdp.yaml"
    config.write_text((CONFIGS / "fsdp.yaml").read_text() + "use_cpu: true\n")
    script = str(Path(__file__).with_name("sharded_command.py"))
    expect_the_same(alone, tmp_path, launch(config, script, tiny_base, examples_file, tmp_path))
