"""A run that was killed goes on as if nothing had happened."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.data.settings import DataSettings
from adapters.data.source import DataSource
from adapters.errors import TrainingError, TrainingSettingsError
from adapters.training.checkpoint import checkpoints
from adapters.training.outcome import TrainOutcome
from adapters.training.run import train_adapter
from adapters.training.settings import TrainSettings
from tests.adapters.training.conftest import quiet, write_examples

# Dropout and averaging have state of their own; two parts per step, checkpoints between evaluations.
SETTINGS = {
    "max_steps": 8,
    "dropout": 0.1,
    "accumulation_steps": 2,
    "ema_decay": 0.8,
    "eval_every_steps": 3,
    "save_every_steps": 2,
}


def run(settings: TrainSettings, file: Path | None, lines: list[str] | None = None) -> TrainOutcome:
    return train_adapter(
        [DataSource(file)] if file is not None else [],
        name="risk",
        settings=settings,
        data_settings=DataSettings(),
        say=(lines if lines is not None else []).append,
    )


@pytest.fixture(scope="module")
def whole_run(
    tiny_base: Path, examples_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainOutcome, list[dict[str, float]]]:
    """The run that nobody kills, and its training losses."""
    home = tmp_path_factory.mktemp("whole")
    outcome = run(_settings(tiny_base, home), examples_file)
    return outcome, _losses(outcome.run_folder)


@pytest.fixture(scope="module")
def killed_home(tiny_base: Path, examples_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a run that died while it evaluated step 6, with checkpoints of steps 2 and 4."""
    import torch

    home = tmp_path_factory.mktemp("killed")
    settings = _settings(tiny_base, home).model_dump(mode="json", exclude_none=True)
    wish = {
        "sources": [str(examples_file)],
        "name": "risk",
        "settings": settings,
        "threads": torch.get_num_threads(),
        "kill_at": "step 6: validation",
    }
    script = [sys.executable, "-m", "tests.adapters.training.killed_run", json.dumps(wish)]
    died = subprocess.run(script, capture_output=True, text=True, timeout=240)
    assert died.returncode == -signal.SIGKILL, died.stderr
    return home


def test_a_killed_run_ends_with_the_same_loss_and_weights(
    whole_run: tuple[TrainOutcome, list[dict[str, float]]], killed_home: Path, tiny_base: Path, tmp_path: Path
) -> None:
    home = _copy(killed_home, tmp_path)
    whole, losses = whole_run
    lines: list[str] = []
    outcome = run(_settings(tiny_base, home, resume="latest"), None, lines)
    assert any("checkpoint-4" in line for line in lines)
    resumed = _losses(outcome.run_folder)
    assert [entry["step"] for entry in resumed] == [entry["step"] for entry in losses]
    assert [entry["loss"] for entry in resumed] == pytest.approx([e["loss"] for e in losses], rel=1e-6)
    assert outcome.after == whole.after
    assert outcome.before == whole.before
    assert outcome.tokens == whole.tokens
    assert outcome.digest == whole.digest  # of every weight and the configuration


def test_a_checkpoint_that_was_cut_off_is_passed_over(
    whole_run: tuple[TrainOutcome, list[dict[str, float]]], killed_home: Path, tiny_base: Path, tmp_path: Path
) -> None:
    home = _copy(killed_home, tmp_path)
    newest = checkpoints(_only_run(home) / "checkpoints")[-1][1]
    weights = newest / "trained.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    lines: list[str] = []
    outcome = run(_settings(tiny_base, home, resume="latest"), None, lines)
    assert f"{newest.name} is not whole and is passed over" in lines
    assert any("checkpoint-2" in line for line in lines)
    assert outcome.digest == whole_run[0].digest


def test_resuming_knows_base_and_home_of_the_run(
    killed_home: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOTSWAP_HOME", raising=False)  # a home that is named now counts
    from adapters.training.run_folder import find_resumption, settings_to_resume_with
    from adapters.training.settings import load_train_settings

    resumption = find_resumption(str(_only_run(killed_home)), home=tmp_path, name="risk")
    resumed = settings_to_resume_with(resumption.record, load_train_settings(resume="latest"))
    assert (resumed.base, resumed.home, resumed.rank) == (str(tiny_base), killed_home, 4)
    moved = load_train_settings(resume="latest", base="other", home=tmp_path)
    resumed = settings_to_resume_with(resumption.record, moved)
    assert (resumed.base, resumed.home) == ("other", tmp_path)


def test_resuming_refuses_changed_settings_and_names_them(killed_home: Path, tiny_base: Path) -> None:
    with pytest.raises(TrainingSettingsError) as caught:
        run(_settings(tiny_base, killed_home, resume="latest", rank=8, seed=5), None)
    assert "--rank: the run has 4, now 8" in str(caught.value)
    assert "--seed: the run has 0, now 5" in str(caught.value)
    assert "--alpha" not in str(caught.value)


def test_resuming_refuses_other_data(killed_home: Path, tiny_base: Path, tmp_path: Path) -> None:
    other = write_examples(tmp_path / "other.jsonl", 60, seed=1)
    with pytest.raises(TrainingError, match="data is not what"):
        run(_settings(tiny_base, killed_home, resume="latest"), other)


def test_resuming_refuses_another_name(killed_home: Path, tiny_base: Path) -> None:
    wish = str(_only_run(killed_home))
    with pytest.raises(TrainingSettingsError, match="give --name risk"):
        train_adapter(
            [],
            name="other",
            settings=_settings(tiny_base, killed_home, resume=wish),
            data_settings=DataSettings(),
            say=quiet,
        )


def test_resuming_refuses_a_folder_without_a_run(make_settings: Callable[..., TrainSettings]) -> None:
    with pytest.raises(TrainingError, match="there is no run in"):
        run(make_settings(resume="latest"), None)


def test_resuming_a_finished_run_exports_it_again(
    whole_run: tuple[TrainOutcome, list[dict[str, float]]], tiny_base: Path, tmp_path: Path
) -> None:
    whole, _ = whole_run
    home = _copy(whole.run_folder.parents[2], tmp_path)
    outcome = run(_settings(tiny_base, home, resume="latest"), None)
    assert outcome.digest == whole.digest
    assert outcome.steps == whole.steps


def _settings(base: Path, home: Path, **given: object) -> TrainSettings:
    from adapters.training.settings import load_train_settings

    fixed = {"base": str(base), "home": home, "device": "cpu", "precision": "fp32", "batch_size": 8}
    small = {"rank": 4, "alpha": 8, "learning_rate": 5e-3, "probe_prompts": 2}
    return load_train_settings(**(fixed | small | SETTINGS | given))


def _copy(home: Path, place: Path) -> Path:
    import shutil

    return Path(shutil.copytree(home, place / "home"))


def _only_run(home: Path) -> Path:
    (folder,) = (home / "runs" / "risk").iterdir()
    return folder


def _losses(run_folder: Path) -> list[dict[str, float]]:
    newest = checkpoints(run_folder / "checkpoints")[-1][1]
    history = json.loads((newest / "trainer_state.json").read_text())["log_history"]
    return [entry for entry in history if "loss" in entry]
