"""What callbacks decide, step by step, without a trainer."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState

from adapters.training.callbacks.best_weights import BestWeights
from adapters.training.callbacks.cadence import Cadence
from adapters.training.callbacks.early_stopping import EarlyStopping
from adapters.training.callbacks.ema import Ema
from adapters.training.callbacks.plateau import Plateau
from adapters.training.callbacks.progress import ProgressBar
from adapters.training.callbacks.state import KeepsState
from adapters.training.callbacks.time_budget import TimeBudget
from adapters.training.callbacks.update_size import UpdateSize
from adapters.training.schedule import RunClock

ARGS = SimpleNamespace(world_size=1, device="cpu")


def metrics(perplexity: float) -> dict[str, float]:
    return {"eval_perplexity": perplexity, "eval_loss": 1.0, "eval_token_accuracy": 0.5}


def tell(callback: Any, perplexity: float, *, step: int = 1, model: Any = None) -> TrainerControl:
    control = TrainerControl()
    callback.on_evaluate(
        ARGS, TrainerState(global_step=step), control, metrics=metrics(perplexity), model=model
    )
    return control


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    return layer


def test_training_stops_after_so_many_evaluations_without_enough_gain() -> None:
    stopping = EarlyStopping(patience=3, min_relative_gain=0.01)
    # Each is the lowest so far, and all of them together are no gain of a hundredth.
    told = [tell(stopping, value).should_training_stop for value in (100.0, 99.7, 99.4, 99.1)]
    assert told == [False, False, False, True]
    assert stopping.stopped


def test_a_gain_is_measured_from_the_last_gain() -> None:
    stopping = EarlyStopping(patience=3, min_relative_gain=0.01)
    assert not tell(stopping, 100.0).should_training_stop
    assert not tell(stopping, 99.5).should_training_stop
    assert stopping.num_without_gain == 1
    assert not tell(stopping, 98.9).should_training_stop  # 1.1 % below 100
    assert (stopping.reference, stopping.num_without_gain) == (98.9, 0)
    assert [tell(stopping, 98.5).should_training_stop for _ in range(3)] == [False, False, True]


def test_patience_0_never_stops() -> None:
    stopping = EarlyStopping(patience=0, min_relative_gain=0.01)
    assert not any(tell(stopping, 100.0).should_training_stop for _ in range(20))


def test_the_weights_of_the_lowest_perplexity_come_back(model: torch.nn.Linear) -> None:
    best = BestWeights()
    assert not best.put_into(model)
    for step, perplexity in enumerate((5.0, 3.0, 4.0), start=1):
        with torch.no_grad():
            model.weight.fill_(step)
        tell(best, perplexity, step=step, model=model)
    assert best.put_into(model)
    assert bool((model.weight == 2).all())
    assert (best.step, best.perplexity) == (2, 3.0)


def test_the_average_is_that_of_the_formula_and_the_models_own_weights_come_back(
    model: torch.nn.Linear,
) -> None:
    ema = Ema(0.25)
    ema.on_train_begin(ARGS, TrainerState(), TrainerControl(), model=model)
    expected = model.weight.detach().clone()
    for step in range(1, 5):
        with torch.no_grad():
            model.weight.add_(step)
        ema.on_step_end(ARGS, TrainerState(), TrainerControl(), model=model)
        decay = min(0.25, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    own = model.weight.detach().clone()
    with ema.applied(model):
        torch.testing.assert_close(model.weight.detach(), expected)
    assert torch.equal(model.weight, own)
    ema.put_into(model)
    torch.testing.assert_close(model.weight.detach(), expected)


def test_the_rate_falls_on_a_plateau_and_patience_starts_anew() -> None:
    plateau = Plateau(factor=0.5, patience=1)
    factors = []
    for perplexity in (10.0, 9.0, 9.0, 9.5, 9.2, 9.3, 8.0, 8.5):
        tell(plateau, perplexity)
        factors.append(plateau.multiplier)
    assert factors == [1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_evaluations_come_at_every_quarter_and_at_the_end() -> None:
    clock = RunClock(10)
    cadence = Cadence(clock, eval_every_steps=None, save_every_steps=None, evaluates=True)
    evaluated, saved = [], []
    for step in range(1, 11):
        control = TrainerControl()
        cadence.on_step_end(ARGS, TrainerState(global_step=step, max_steps=10), control)
        evaluated += [step] * control.should_evaluate
        saved += [step] * control.should_save
    assert evaluated == saved == [3, 5, 8, 10]
    assert cadence.finished


def test_given_numbers_of_steps_hold_and_the_end_counts_too() -> None:
    cadence = Cadence(RunClock(7), eval_every_steps=3, save_every_steps=2, evaluates=True)
    evaluated, saved = [], []
    for step in range(1, 8):
        control = TrainerControl()
        cadence.on_step_end(ARGS, TrainerState(global_step=step, max_steps=7), control)
        evaluated += [step] * control.should_evaluate
        saved += [step] * control.should_save
    assert evaluated == [3, 6, 7]
    assert saved == [2, 4, 6, 7]


def test_a_run_ends_when_the_clock_says_so() -> None:
    now = [0.0]
    budget = TimeBudget(RunClock(1000, budget_seconds=10.0, now=lambda: now[0]))
    budget.on_train_begin(ARGS, TrainerState(), TrainerControl())
    stops = []
    for seconds in (4.0, 9.9, 10.0):
        now[0] = seconds
        control = TrainerControl()
        budget.on_step_end(ARGS, TrainerState(), control)
        stops.append(control.should_training_stop)
    assert stops == [False, False, True]


def test_the_update_size_is_change_over_size(model: torch.nn.Linear) -> None:
    size = UpdateSize(every_steps=2)
    for step in range(2):
        state = TrainerState(global_step=step)
        size.on_pre_optimizer_step(ARGS, state, TrainerControl(), model=model)
        before = model.weight.detach().clone()
        with torch.no_grad():
            model.weight.mul_(1.1)
        size.on_optimizer_step(ARGS, state, TrainerControl(), model=model)
        assert (size.value is None) == (step == 0)
    assert size.value == pytest.approx(float((model.weight.detach() - before).norm() / before.norm()))


def test_states_survive_a_file(model: torch.nn.Linear) -> None:
    ema, best, clock = Ema(0.9), BestWeights(), RunClock(10)
    ema.on_train_begin(ARGS, TrainerState(), TrainerControl(), model=model)
    tell(best, 3.0, model=model)
    stopping, plateau = EarlyStopping(patience=3, min_relative_gain=0.1), Plateau(factor=0.5, patience=1)
    cadence = Cadence(clock, eval_every_steps=None, save_every_steps=None, evaluates=True)
    cadence.before = (1.0, 2.0, 0.5)
    for callback in (ema, best, stopping, plateau, cadence, TimeBudget(clock)):
        assert isinstance(callback, KeepsState)
        file = io.BytesIO()
        torch.save(callback.state(), file)
        file.seek(0)
        loaded = torch.load(file, weights_only=True)
        callback.restore(loaded)
        again = callback.state()
        assert again.keys() == loaded.keys()
        torch.testing.assert_close(again, loaded)


def test_progress_is_a_line_every_ten_seconds_where_there_is_no_terminal() -> None:
    now = [0.0]
    lines: list[str] = []
    clock = RunClock(100, now=lambda: now[0])
    progress = ProgressBar(clock, say=lines.append, console=None, now=lambda: now[0])
    clock.start()
    state = TrainerState(max_steps=100)
    progress.on_train_begin(ARGS, state, TrainerControl())
    for step in range(1, 31):
        now[0], state.global_step = float(step), step
        clock.read()
        progress.on_log(ARGS, state, TrainerControl(), logs={"loss": 1.5, "tokens_per_second": 120.0})
        progress.on_step_end(ARGS, state, TrainerControl())
    assert lines == [
        "step 10/100, loss 1.5000, 120 tok/s, 1 min 30 s left",
        "step 20/100, loss 1.5000, 120 tok/s, 1 min 20 s left",
        "step 30/100, loss 1.5000, 120 tok/s, 1 min 10 s left",
    ]


def test_progress_is_a_bar_on_a_terminal() -> None:
    from rich.console import Console

    lines: list[str] = []
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    clock = RunClock(4)
    progress = ProgressBar(clock, say=lines.append, console=console)
    state = TrainerState(max_steps=4)
    progress.on_train_begin(ARGS, state, TrainerControl())
    state.global_step = 2
    progress.on_step_end(ARGS, state, TrainerControl())
    progress.on_evaluate(ARGS, state, TrainerControl(), metrics=metrics(7.0))
    progress.on_train_end(ARGS, state, TrainerControl())
    assert lines == []
    assert "validation perplexity 7" in screen.getvalue()
    assert "training" in screen.getvalue()
