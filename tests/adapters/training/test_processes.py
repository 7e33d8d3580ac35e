"""Several processes train what one would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.adapters.training.conftest import quiet

ROOT = Path(__file__).parents[3]


def test_two_processes_train_what_one_trains_in_two_parts(
    tiny_base: Path, examples_file: Path, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    from adapters.data.settings import DataSettings
    from adapters.data.source import DataSource
    from adapters.training.run import train_adapter
    from adapters.training.settings import load_train_settings

    settings = {"base": str(tiny_base), "device": "cpu", "precision": "fp32", "max_steps": 4, "rank": 4}
    settings |= {"batch_size": 8, "learning_rate": 5e-3, "probe_prompts": 2}
    alone = train_adapter(
        [DataSource(examples_file)],
        name="risk",
        settings=load_train_settings(home=tmp_path / "one", accumulation_steps=2, **settings),
        data_settings=DataSettings(),
        say=quiet,
    )
    flags = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    launch = ["-m", "accelerate.commands.launch", "--config_file", "deploy/accelerate/multi-cpu.yaml"]
    launch += ["--main_process_port", "0"]  # any free one
    command = ["hotswap.py", "train", str(examples_file), "--name", "risk", "--home", str(tmp_path / "two")]
    done = subprocess.run(
        [sys.executable, *launch, *command, *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[:8000]
    assert done.stdout.count("validation perplexity") == 1  # one process speaks
    (published,) = (tmp_path / "two" / "adapters" / "risk").iterdir()
    (folder,) = (tmp_path / "two" / "runs" / "risk").iterdir()
    outcome = json.loads((folder / "outcome.json").read_text())
    assert json.loads((folder / "settings.json").read_text())["num_processes"] == 2
    assert alone.after is not None
    assert outcome["after"]["perplexity"] == pytest.approx(alone.after.perplexity, rel=1e-4)
    assert outcome["tokens"] == alone.tokens
    together = load_file(published / "adapter_model.safetensors")
    for name, value in load_file(alone.adapter_folder / "adapter_model.safetensors").items():
        torch.testing.assert_close(together[name], value, atol=1e-4, rtol=1e-3)
