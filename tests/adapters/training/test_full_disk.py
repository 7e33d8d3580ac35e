"""A run whose disk is full stops with one message, keeps what was whole, and goes on from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.data.settings import DataSettings
from adapters.data.source import DataSource
from adapters.errors import TrainingError
from adapters.training import trainer as trainers
from adapters.training.callbacks.event_file import EventFile
from adapters.training.checkpoint import checkpoints, is_whole, seal_checkpoint
from adapters.training.outcome import TrainOutcome
from adapters.training.run import train_adapter
from adapters.training.run_folder import RunRecord, find_resumption, new_run_folder
from adapters.training.settings import TrainSettings
from tests.full_disk import files_no_larger_than

Make = Callable[..., TrainSettings]
Train = Callable[..., TrainOutcome]


@pytest.fixture
def train(examples_file: Path) -> Train:
    def run(settings: TrainSettings, said: list[str] | None = None) -> TrainOutcome:
        return train_adapter(
            [DataSource(examples_file)] if settings.resume is None else [],
            name="risk",
            settings=settings,
            data_settings=DataSettings(),
            say=(said if said is not None else []).append,
        )

    return run


def full_after(checkpoints_written: int, num_bytes: int) -> Callable[..., Any]:
    """The trainer's way to save, on a disk that takes no file of `num_bytes` from some checkpoint on."""
    save = trainers.AdapterTrainer._save_checkpoint
    written: list[None] = []

    def save_checkpoint(self: Any, *arguments: Any) -> None:
        written.append(None)
        if len(written) <= checkpoints_written:
            save(self, *arguments)
            return
        with files_no_larger_than(num_bytes):
            save(self, *arguments)

    return save_checkpoint


# The weights are written first, by safetensors; then come the optimiser's state by torch and several small files.
@pytest.mark.parametrize("num_bytes", [100, 45_000])
def test_a_checkpoint_that_finds_no_room_leaves_the_one_before_to_go_on_from(
    train: Train, make_settings: Make, monkeypatch: pytest.MonkeyPatch, num_bytes: int
) -> None:
    wishes = {"save_every_steps": 2, "max_steps": 6}
    settings = make_settings(**wishes)
    said: list[str] = []
    with (
        pytest.raises(TrainingError, match=r"The checkpoint of step 4 cannot be written.*Free space there"),
        monkeypatch.context() as patch,
    ):
        patch.setattr(trainers.AdapterTrainer, "_save_checkpoint", full_after(1, num_bytes))
        train(settings, said)
    (folder,) = (settings.home / "runs" / "risk").iterdir()
    assert said[-1] == f"Stopped. To go on from checkpoint-2: hotswap train --name risk --resume {folder}"
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["checkpoint-2"]
    assert is_whole(folder / "checkpoints" / "checkpoint-2")
    outcome = train(make_settings(**wishes, resume=str(folder)))
    assert (outcome.run_folder, outcome.steps) == (folder, 6)
    assert outcome.digest == train(make_settings(**wishes)).digest


def test_without_a_checkpoint_the_message_does_not_name_one(
    train: Train, make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainers.AdapterTrainer, "_save_checkpoint", full_after(0, 100))
    said: list[str] = []
    with pytest.raises(TrainingError, match="The checkpoint of step 2 cannot be written"):
        train(make_settings(save_every_steps=2), said)
    assert "no checkpoint yet to go on from" in said[-1]


def test_a_run_that_stopped_before_it_began_does_not_hide_the_one_before(tmp_path: Path) -> None:
    record = RunRecord("risk", {}, "d" * 64, "b" * 64, 1)
    first = new_run_folder(tmp_path, "risk")
    record.write(first)
    with pytest.raises(TrainingError, match="cannot be written: File too large"), files_no_larger_than(10):
        record.write(new_run_folder(tmp_path, "risk"))
    assert list((tmp_path / "runs" / "risk").iterdir()) == [first]
    new_run_folder(tmp_path, "risk")  # killed before it wrote its record
    with pytest.raises(TrainingError, match=rf"{first.name} holds no whole checkpoint to go on from\. Start"):
        find_resumption("latest", home=tmp_path, name="risk")
    whole = first / "checkpoints" / "checkpoint-3"
    whole.mkdir(parents=True)
    (whole / "weights").write_text("w")
    seal_checkpoint(whole)
    second = new_run_folder(tmp_path, "risk")
    record.write(second)  # refused before its first step
    with pytest.raises(
        TrainingError, match=rf"{second} holds no whole checkpoint.* can go on: --resume {first}\."
    ):
        find_resumption("latest", home=tmp_path, name="risk")
    assert find_resumption(str(first), home=tmp_path, name="risk").checkpoint == whole


def test_figures_that_find_no_room_do_not_take_the_finished_adapter_away(
    train: Train, make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_text

    def full(path: Path, *arguments: Any, **given: Any) -> int:
        with files_no_larger_than(10 if "outcome" in path.name else 1 << 40):
            return write(path, *arguments, **given)

    monkeypatch.setattr(Path, "write_text", full)
    said: list[str] = []
    outcome = train(make_settings(max_steps=2), said)
    assert outcome.digest is not None
    assert outcome.adapter_folder.is_dir()
    assert any(line.startswith("Warning: the figures cannot be kept") for line in said)
    assert not (outcome.run_folder / "outcome.json").exists()


def test_a_method_that_is_not_served_leaves_no_half_adapter_and_overwrites_none(
    train: Train, make_settings: Make
) -> None:
    settings = make_settings(method="prefix", save_every_steps=2)
    first = train(settings)
    kept = (first.adapter_folder / "adapter_model.safetensors").read_bytes()
    again = train(make_settings(method="prefix", save_every_steps=2, resume=str(first.run_folder)))
    assert again.adapter_folder == first.run_folder / "adapter-2"
    assert (first.adapter_folder / "adapter_model.safetensors").read_bytes() == kept
    assert json.loads((first.run_folder / "outcome.json").read_text())["adapter_folder"].endswith("adapter-2")
    assert checkpoints(first.run_folder / "checkpoints")


def test_curves_that_find_no_room_are_given_up_and_training_goes_on(
    train: Train, make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = EventFile.add_points

    def full(self: EventFile, points: dict[str, float], step: int) -> None:
        with files_no_larger_than(2000 if step >= 2 else 1 << 40):
            write(self, points, step)

    monkeypatch.setattr(EventFile, "add_points", full)
    said: list[str] = []
    outcome = train(make_settings(max_steps=4), said)
    assert (outcome.steps, outcome.digest is not None) == (4, True)
    warnings = [line for line in said if line.startswith("Warning: training goes on without curves")]
    assert len(warnings) == 1
    assert "File too large. Free space there" in warnings[0]
