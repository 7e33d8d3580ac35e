"""A run that a signal stops saves the step that it is at, says how to go on, and goes on to the same end."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.data.settings import DataSettings
from adapters.data.source import DataSource
from adapters.training.callbacks.interruption import Interruption
from adapters.training.callbacks.update_size import UpdateSize
from adapters.training.checkpoint import checkpoints
from adapters.training.outcome import TrainOutcome
from adapters.training.run import train_adapter
from adapters.training.settings import TrainSettings
from tests.adapters.training.conftest import quiet

Make = Callable[..., TrainSettings]
WISHES: dict[str, Any] = {"max_steps": 6, "eval_every_steps": 3, "save_every_steps": 100}


def train(settings: TrainSettings, examples: Path, said: list[str]) -> TrainOutcome:
    return train_adapter(
        [DataSource(examples)] if settings.resume is None else [],
        name="risk",
        settings=settings,
        data_settings=DataSettings(),
        say=said.append,
    )


@pytest.fixture
def signal_in_step(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have the process get a signal, or several, while it takes a step."""

    def plan(step: int, *numbers: signal.Signals) -> None:
        begin = UpdateSize.on_step_begin

        def on_step_begin(self: Any, args: Any, state: Any, control: Any, **given: Any) -> None:
            if state.global_step == step - 1:
                for number in numbers:
                    signal.raise_signal(number)
            begin(self, args, state, control, **given)

        monkeypatch.setattr(UpdateSize, "on_step_begin", on_step_begin)

    return plan


@pytest.mark.parametrize(
    ("step", "number", "error"),
    [
        (2, signal.SIGINT, KeyboardInterrupt),
        (3, signal.SIGTERM, SystemExit),  # a step after which is evaluated
        (6, signal.SIGINT, KeyboardInterrupt),  # the last one
    ],
)
def test_the_step_is_saved_and_the_run_goes_on_to_the_same_end(
    make_settings: Make,
    examples_file: Path,
    signal_in_step: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    number: signal.Signals,
    error: type[BaseException],
) -> None:
    said: list[str] = []
    settings = make_settings(**WISHES)
    before = signal.getsignal(number)
    with monkeypatch.context():
        signal_in_step(step, number)
        with pytest.raises(error) as stopped:
            train(settings, examples_file, said)
    monkeypatch.undo()
    if error is SystemExit:
        assert stopped.value.args == (143,)
    assert signal.getsignal(number) is before
    (folder,) = (settings.home / "runs" / "risk").iterdir()
    assert [number for number, _ in checkpoints(folder / "checkpoints")] == [step]
    assert "Stopping when this step is done and saved; once more to stop at once" in said
    assert (
        said[-1] == f"Stopped. To go on from checkpoint-{step}: hotswap train --name risk --resume {folder}"
    )
    assert not (settings.home / "adapters").exists()
    resumed = train(make_settings(**WISHES, resume=str(folder)), examples_file, [])
    whole = train(make_settings(**WISHES), examples_file, [])
    assert (resumed.steps, resumed.end_reason) == (6, "all steps done")
    assert resumed.after == whole.after
    assert resumed.digest == whole.digest


def test_a_second_signal_stops_at_once(
    make_settings: Make, examples_file: Path, signal_in_step: Callable[..., None]
) -> None:
    said: list[str] = []
    signal_in_step(2, signal.SIGTERM, signal.SIGINT)
    with pytest.raises(SystemExit):
        train(make_settings(**WISHES), examples_file, said)
    assert "no checkpoint yet" in said[-1]


def test_beside_other_processes_signals_do_what_they_always_do() -> None:
    interruption = Interruption(quiet)
    before = signal.getsignal(signal.SIGTERM)
    with interruption.heard(alone=False):
        assert signal.getsignal(signal.SIGTERM) is before
    with interruption.heard(alone=True):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
