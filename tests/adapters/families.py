"""Tiny bases of the DeepSeek families and of the R1 distillations, and a short run on each."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.data.settings import DataSettings
from adapters.data.source import DataSource
from adapters.training.outcome import TrainOutcome
from adapters.training.run import train_adapter
from adapters.training.settings import load_train_settings
from bases.resolve import resolve_base
from bases.tiny import Architecture, make_tiny_base

FAMILIES: list[Architecture] = ["llama", "qwen2", "deepseek_v2", "deepseek_v3"]
LATENT_LAYERS = {"kv_a_proj_with_mqa", "o_proj", "q_a_proj", "q_b_proj"}
WORDS = ("cat", "dog", "train", "coffee", "weather", "cake", "city", "box", "sun", "story", "house", "rain")


@dataclass(frozen=True)
class Trained:
    """A base, and the adapter that a run made for it."""

    given: Path  # the folder that was named
    base: Path  # the folder it was resolved to: another one where the tokenizer's class is wrong
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


def train_family(family: Architecture, folder: Path, **given: Any) -> Trained:
    given_base = make_tiny_base(folder / "base", architecture=family, chat="r1")
    _call_it_llamas(given_base)
    settings = {
        "base": str(given_base),
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
    base = resolve_base(str(given_base), home=folder / "home", progress=said.append)
    return Trained(given_base, base.path, folder / "home", outcome, said)


def _call_it_llamas(base: Path) -> None:
    """All of DeepSeek's folders call their byte-level tokenizer so (bases/tokenizer_class.py)."""
    path = base / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"tokenizer_class": "LlamaTokenizerFast"}
    path.write_text(json.dumps(config), encoding="utf-8")
