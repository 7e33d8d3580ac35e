"""A run from files to a published adapter: its figures are those of the adapter that is served."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.data.encode import EncodedExample, ExampleEncoder, encode_all
from adapters.data.prepare import prepare_data
from adapters.data.settings import DataSettings
from adapters.data.source import DataSource
from adapters.errors import TrainingError
from adapters.training.callbacks.tensorboard import CURVES
from adapters.training.checkpoint import checkpoints
from adapters.training.outcome import TrainOutcome
from adapters.training.run import train_adapter
from adapters.training.schedule import rate_factor
from adapters.training.settings import TrainSettings
from bases.errors import HotswapError
from tests.adapters.training.conftest import quiet, write_examples

Make = Callable[..., TrainSettings]


@pytest.fixture
def run(examples_file: Path) -> Callable[..., TrainOutcome]:
    def train(settings: TrainSettings, *sources: DataSource, **given: Any) -> TrainOutcome:
        return train_adapter(
            sources or [DataSource(examples_file)],
            name="risk",
            settings=settings,
            data_settings=DataSettings(),
            **({"say": quiet} | given),
        )

    return train


def history(outcome: TrainOutcome) -> list[dict[str, float]]:
    newest = checkpoints(outcome.run_folder / "checkpoints")[-1][1]
    return list(json.loads((newest / "trainer_state.json").read_text())["log_history"])


def losses(outcome: TrainOutcome) -> list[float]:
    return [entry["loss"] for entry in history(outcome) if "loss" in entry]


def nll(model: Any, examples: list[EncodedExample]) -> Iterator[tuple[float, int]]:
    """(sum of negative log probabilities, learned tokens) of each example, one after the other."""
    for example in examples:
        ids = torch.tensor([example.input_ids])
        with torch.no_grad():
            log_probs = model(ids).logits.double().log_softmax(-1)[0, :-1]
        learned = torch.tensor(example.supervised[1:])
        yield -log_probs.gather(-1, ids[0, 1:, None])[learned].sum().item(), int(learned.sum())


def encoded(base: Path, source: DataSource, split: str) -> list[EncodedExample]:
    prepared = prepare_data([source], DataSettings(), progress=quiet)
    return list(encode_all(getattr(prepared, split), ExampleEncoder(base, max_length_tokens=512)).examples)


def plain_base(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("packing", [True, False])
def test_validation_figures_are_those_of_the_published_adapter(
    run: Callable[..., TrainOutcome], make_settings: Make, tiny_base: Path, examples_file: Path, packing: bool
) -> None:
    from peft import PeftModel

    outcome = run(make_settings(packing=packing))
    examples = encoded(tiny_base, DataSource(examples_file), "validation")
    for score, model in (
        (outcome.before, plain_base(tiny_base)),
        (outcome.after, PeftModel.from_pretrained(plain_base(tiny_base), outcome.adapter_folder)),
    ):
        sums = list(nll(model, examples))
        loss = sum(one for one, _ in sums) / sum(count for _, count in sums)
        assert score is not None
        assert score.loss == pytest.approx(loss, abs=1e-5)
        assert score.perplexity == pytest.approx(math.exp(loss), rel=1e-5)


def test_accumulation_and_checkpointing_of_activations_change_nothing(
    run: Callable[..., TrainOutcome], make_settings: Make
) -> None:
    whole = losses(run(make_settings(max_steps=4)))
    for same in ({"accumulation_steps": 4}, {"gradient_checkpointing": True}):
        assert losses(run(make_settings(max_steps=4, **same))) == pytest.approx(whole, abs=2e-5)


def test_a_weight_of_a_task_weighs_its_tokens_in_the_loss(
    run: Callable[..., TrainOutcome], make_settings: Make, tiny_base: Path, tmp_path: Path
) -> None:
    sources = [
        DataSource(write_examples(tmp_path / "a.jsonl", 20, seed=1), "a", 1.0),
        DataSource(write_examples(tmp_path / "b.jsonl", 20, seed=2), "b", 5.0),
    ]
    prepared = prepare_data(sources, DataSettings(), progress=quiet)
    examples = encode_all(prepared.train, ExampleEncoder(tiny_base, max_length_tokens=512)).examples
    outcome = run(make_settings(max_steps=1, batch_size=len(examples), accumulation_steps=3), *sources)
    base = plain_base(tiny_base)
    weighted, weight = 0.0, 0.0
    for example, (loss, tokens) in zip(examples, nll(base, list(examples)), strict=True):
        factor = 5.0 if example.task == "b" else 1.0
        weighted, weight = weighted + factor * loss, weight + factor * tokens
    assert losses(outcome) == pytest.approx([weighted / weight], abs=1e-5)


def test_the_learning_rate_follows_its_schedule(
    run: Callable[..., TrainOutcome], make_settings: Make
) -> None:
    outcome = run(make_settings(schedule="linear", warmup=0.25, learning_rate=1e-3, max_steps=8))
    rates = [entry["learning_rate"] for entry in history(outcome) if "loss" in entry]
    expected = [1e-3 * rate_factor("linear", progress=(step + 0.5) / 8, warmup=0.25) for step in range(8)]
    assert rates == pytest.approx(expected)


def test_tensorboard_has_every_curve(run: Callable[..., TrainOutcome], make_settings: Make) -> None:
    from tensorboard.backend.event_processing import event_accumulator  # type: ignore[import-untyped]

    outcome = run(make_settings())
    events = event_accumulator.EventAccumulator(str(outcome.run_folder / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == set(CURVES.values())
    assert [point.step for point in events.Scalars("train/update_size")] == list(range(1, 7))
    perplexities = [point.value for point in events.Scalars("validation/perplexity")]
    assert outcome.after is not None
    assert min(perplexities) == pytest.approx(outcome.after.perplexity, rel=1e-5)


def test_a_loss_that_is_no_number_ends_the_run_with_a_message(
    run: Callable[..., TrainOutcome], make_settings: Make
) -> None:
    settings = make_settings(learning_rate=1e30, warmup=0.0, clip_norm=0.0)
    with pytest.raises(
        TrainingError, match=r"The loss is \S+ at step [0-9]+\. Start anew with a lower --learning-rate"
    ):
        run(settings)


def test_a_run_ends_when_time_is_up(run: Callable[..., TrainOutcome], make_settings: Make) -> None:
    outcome = run(make_settings(max_steps=1_000_000, max_minutes=0.001))
    assert outcome.end_reason == "time is up"
    assert 1 <= outcome.steps < 1_000_000
    assert outcome.after is not None and outcome.digest is not None
    last = [entry["learning_rate"] for entry in history(outcome) if "loss" in entry][-1]
    assert last < 5e-3  # the schedule was laid over the time


def test_the_best_weights_are_kept_and_training_stops_when_nothing_is_gained(
    run: Callable[..., TrainOutcome], make_settings: Make
) -> None:
    # The rate rises until the model breaks; the best evaluation comes first.
    outcome = run(make_settings(learning_rate=1.0, warmup=0.99, max_steps=40, eval_every_steps=1, patience=3))
    scores = [entry["eval_perplexity"] for entry in history(outcome) if "eval_perplexity" in entry]
    assert outcome.end_reason == "no more gain"
    assert outcome.steps < 40
    assert outcome.best_step < outcome.steps
    assert outcome.after is not None
    assert outcome.after.perplexity == min(scores[1:])


def test_training_says_nothing_to_the_network_and_writes_no_card_of_trl(
    run: Callable[..., TrainOutcome], make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("training opened a connection")

    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("trl.trainer.base_trainer.send_telemetry", refuse)
    outcome = run(make_settings(max_steps=2))
    assert not list(outcome.run_folder.glob("checkpoints/**/README.md"))


def test_bfloat16_trains_with_weights_of_the_adapter_in_float32(
    run: Callable[..., TrainOutcome], make_settings: Make
) -> None:
    from safetensors.torch import load_file

    outcome = run(make_settings(precision="bf16", max_steps=3))
    newest = checkpoints(outcome.run_folder / "checkpoints")[-1][1]
    weights = load_file(newest / "trained.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert outcome.before is not None and outcome.after is not None
    assert outcome.after.perplexity < outcome.before.perplexity


def test_a_failed_push_says_where_the_finished_adapter_is(
    run: Callable[..., TrainOutcome], make_settings: Make
) -> None:
    def refuse(folder: Path, name: str) -> str:
        raise HotswapError("no gateway answers.")

    settings = make_settings(max_steps=1)
    with pytest.raises(TrainingError, match=r"is finished .*no gateway answers.*hotswap adapters push risk"):
        run(settings, push=refuse)
    (version,) = (settings.home / "adapters" / "risk").iterdir()
    assert (version / "hotswap.json").is_file()


def test_a_second_run_publishes_beside_the_first_and_overwrites_nothing(
    run: Callable[..., TrainOutcome], make_settings: Make
) -> None:
    first = run(make_settings(max_steps=2))
    before = {path.name: path.stat().st_mtime_ns for path in first.adapter_folder.iterdir()}
    again = run(make_settings(max_steps=2))
    other = run(make_settings(max_steps=2, seed=1))
    assert again.digest == first.digest  # same seed, same adapter
    assert again.adapter_folder == first.adapter_folder
    assert {path.name: path.stat().st_mtime_ns for path in first.adapter_folder.iterdir()} == before
    assert other.adapter_folder.parent == first.adapter_folder.parent
    assert other.digest != first.digest
