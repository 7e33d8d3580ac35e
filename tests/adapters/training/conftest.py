"""A tiny base and a small data set that can be learned, for every test of training."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.training.settings import TrainSettings, load_train_settings
from bases.tiny import make_tiny_base

WORDS = ("cat", "dog", "train", "coffee", "weather", "cake", "city", "box", "sun", "story", "house", "rain")


def write_examples(path: Path, count: int, *, seed: int = 0) -> Path:
    """`count` chats whose answer follows from the question; no two are alike."""
    source = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            words = " ".join(source.choice(WORDS) for _ in range(source.randint(2, 9)))
            level = "low" if len(words) < 25 else "high"
            messages = [
                {"role": "user", "content": f"{seed}-{number}: {words}"},
                {"role": "assistant", "content": f"risk {level}, {words.split()[0]}"},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")
    return path


def quiet(_: str) -> None:
    """For what is told to nobody."""


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("bases") / "tiny", hidden_size=64, heads=2, kv_heads=1)


@pytest.fixture(scope="session")
def examples_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_examples(tmp_path_factory.mktemp("data") / "notes.jsonl", 60)


@pytest.fixture
def make_settings(tiny_base: Path, tmp_path: Path) -> Callable[..., TrainSettings]:
    """Settings of a short run on the tiny base, on the CPU in float32, in a home of its own."""

    def make(**given: Any) -> TrainSettings:
        defaults = {
            "base": str(tiny_base),
            "home": tmp_path / "home",
            "device": "cpu",
            "precision": "fp32",
            "max_steps": 6,
            "batch_size": 8,
            "rank": 4,
            "alpha": 8,
            "learning_rate": 5e-3,
            "probe_prompts": 2,
        }
        return load_train_settings(**(defaults | given))

    return make
