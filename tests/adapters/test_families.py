"""The DeepSeek families and the R1 distillations from a file of examples to a published adapter."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adapters.check import check_adapter
from adapters.data.settings import DataSettings
from adapters.data.source import DataSource
from adapters.errors import TrainingSettingsError
from adapters.target import describe_target
from adapters.training.outcome import TrainOutcome
from adapters.training.run import train_adapter
from adapters.training.settings import load_train_settings
from bases.passport import read_passport
from bases.resolve import resolve_base
from bases.tiny import make_tiny_base

FAMILIES = ["llama", "qwen2", "deepseek_v2", "deepseek_v3"]
LATENT_LAYERS = {"kv_a_proj_with_mqa", "o_proj", "q_a_proj", "q_b_proj"}
WORDS = ("cat", "dog", "train", "coffee", "weather", "cake", "city", "box", "sun", "story", "house", "rain")


@dataclass(frozen=True)
class Trained:
    base: Path
    home: Path
    outcome: TrainOutcome
    said: list[str]


def write_examples(path: Path, count: int) -> Path:
    """Questions whose answers follow from them, with the reasoning that R1's turns begin with."""
    source = random.Random(0)
    lines = []
    for number in range(count):
        words = " ".join(source.choice(WORDS) for _ in range(source.randint(2, 9)))
        level = "low" if len(words) < 25 else "high"
        answer = f"It has {len(words)} letters.</think>risk {level}, {words.split()[0]}"
        messages = [
            {"role": "user", "content": f"{number}: {words}"},
            {"role": "assistant", "content": answer},
        ]
        lines.append(json.dumps({"messages": messages}) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


def train(family: str, folder: Path, **given: Any) -> Trained:
    base = make_tiny_base(folder / "base", architecture=family, chat="r1")
    settings = {
        "base": str(base),
        "home": folder / "home",
        "device": "cpu",
        "precision": "fp32",
        "max_steps": 12,
        "batch_size": 8,
        "rank": 4,
        "alpha": 8,
        "learning_rate": 5e-3,
        "probe_prompts": 2,
    }
    said: list[str] = []
    outcome = train_adapter(
        [DataSource(write_examples(folder / "notes.jsonl", 60))],
        name="risk",
        settings=load_train_settings(**(settings | given)),
        data_settings=DataSettings(),
        say=said.append,
    )
    return Trained(base, folder / "home", outcome, said)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    return {family: train(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_validation_loss_falls(trained, family):
    outcome = trained[family].outcome
    assert outcome.after.loss < 0.9 * outcome.before.loss


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_published_passes_the_gateways_check(trained, family):
    one = trained[family]
    base = resolve_base(str(one.base), home=one.home, progress=print)
    passport = read_passport(base, home=one.home)
    report = check_adapter(one.outcome.adapter_folder, target=describe_target(base, passport))
    assert report.problems == ()
    assert report.facts.has_manifest
    assert report.facts.has_probe
    assert set(report.facts.target_modules) == (
        LATENT_LAYERS if family.startswith("deepseek") else set(passport.facts.linear_suffixes())
    )


@pytest.mark.parametrize("family", ["deepseek_v2", "deepseek_v3"])
def test_the_run_says_which_layers_it_leaves_out_and_why(trained, family):
    said = "\n".join(trained[family].said)
    assert "Left out: vLLM folds kv_b_proj" in said
    assert "Left out: PEFT reads up_proj as that of the experts" in said


@pytest.mark.parametrize("name", ["kv_b_proj", "up_proj"])
def test_a_layer_that_cannot_be_served_is_refused_before_training(tmp_path, name):
    with pytest.raises(TrainingSettingsError, match=f"--targets {name}: "):
        train("deepseek_v3", tmp_path, targets=f"q_a_proj,{name}")
