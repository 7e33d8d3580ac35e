"""The families that bases come in train, are exported and answer alike on the served form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.check import check_adapter
from adapters.data.settings import DataSettings
from adapters.data.source import DataSource
from adapters.training.run import train_adapter
from adapters.training.settings import TrainSettings
from bases.tiny import make_tiny_base
from tests.adapters.training.conftest import quiet


@pytest.mark.parametrize(
    "kind",
    [
        {"architecture": "qwen2", "tied_embeddings": True},
        {"architecture": "qwen2", "chat": "r1"},
        {"architecture": "deepseek_v2"},
        {"architecture": "deepseek_v3"},
    ],
    ids=lambda kind: "-".join(map(str, kind.values())),
)
def test_a_family_learns_and_is_published(
    kind: dict[str, Any], make_settings: Callable[..., TrainSettings], examples_file: Path, tmp_path: Path
) -> None:
    base = make_tiny_base(tmp_path / "base", **kind)
    outcome = train_adapter(
        [DataSource(examples_file)],
        name="risk",
        settings=make_settings(base=str(base), max_steps=4),
        data_settings=DataSettings(),
        say=quiet,
    )
    assert outcome.before is not None and outcome.after is not None
    assert outcome.after.perplexity < outcome.before.perplexity
    assert check_adapter(outcome.adapter_folder, target=None).ok
    assert not outcome.notes  # packed, as every base whose attention allows it
