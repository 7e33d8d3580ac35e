"""Every way to adapt a base, from the first step to the adapter that is served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.check import check_adapter
from adapters.data.settings import DataSettings
from adapters.data.source import DataSource
from adapters.training.methods.registry import METHODS
from adapters.training.run import train_adapter
from adapters.training.settings import TrainSettings
from tests.adapters.training.conftest import quiet

SERVABLE = [
    name for name, method in METHODS.items() if method.servable and name != "loftq"
]  # see test_quantised_base
# Not low-rank by nature: converted with a measured error.
LIFTED = {"dora": 1.0, "full": 1.0}


def test_only_prefix_and_prompt_tuning_cannot_be_served() -> None:
    assert {name for name, method in METHODS.items() if not method.servable} == {"prefix", "prompt"}
    assert all(METHODS[name].why_not for name in ("prefix", "prompt"))


@pytest.mark.parametrize("name", SERVABLE)
def test_a_method_learns_and_is_published(
    name: str, make_settings: Callable[..., TrainSettings], examples_file: Path
) -> None:
    settings = make_settings(
        method=name, learning_rate=None, max_steps=4, max_export_error=LIFTED.get(name, 1e-3)
    )
    outcome = train_adapter(
        [DataSource(examples_file)],
        name="risk",
        settings=settings,
        data_settings=DataSettings(),
        say=quiet,
    )
    assert outcome.after is not None and outcome.before is not None
    assert outcome.after.perplexity < outcome.before.perplexity
    assert outcome.adapter_folder == settings.home / "adapters" / "risk" / str(outcome.digest)[:8]
    assert check_adapter(outcome.adapter_folder, target=None).ok


@pytest.mark.parametrize("name", ["prefix", "prompt"])
def test_a_method_that_cannot_be_served_learns_and_says_why(
    name: str, make_settings: Callable[..., TrainSettings], examples_file: Path
) -> None:
    lines: list[str] = []
    outcome = train_adapter(
        [DataSource(examples_file)],
        name="risk",
        settings=make_settings(method=name, learning_rate=None, virtual_tokens=4),
        data_settings=DataSettings(),
        say=lines.append,
    )
    assert outcome.after is not None and outcome.before is not None
    assert outcome.after.perplexity < outcome.before.perplexity
    assert outcome.digest is None
    assert any("no LoRA form" in line for line in lines)
    assert (outcome.adapter_folder / "adapter_config.json").is_file()
    assert not (outcome.run_folder.parents[2] / "adapters").exists()
