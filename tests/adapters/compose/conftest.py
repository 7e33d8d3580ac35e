"""A tiny base, the same quantised, and adapters of both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.export.export import export_adapter
from tests.adapters.export.trained_models import PROMPTS, TinyBase, make_base, train
from tests.adapters.quantised_bases import quantise


@pytest.fixture(scope="package")
def original(tmp_path_factory: pytest.TempPathFactory) -> TinyBase:
    return make_base(tmp_path_factory.mktemp("original"), tied_embeddings=True)


@pytest.fixture(scope="package")
def quantised(original: TinyBase, tmp_path_factory: pytest.TempPathFactory) -> TinyBase:
    return quantise(original, tmp_path_factory.mktemp("quantised") / "tiny-llama-w4a16", "W4A16")


@pytest.fixture
def make_adapter(tmp_path: Path) -> Callable[..., Path]:
    """`make_adapter(base, name, kind, seed)`: an exported adapter with manifest and probe for `base`."""

    def make(base: TinyBase, name: str, kind: str = "lora", seed: int = 0) -> Path:
        report = export_adapter(
            train(base, kind, seed=seed),
            method=kind,
            base=base.resolved,
            passport=base.passport,
            folder=tmp_path / name,
            probe_prompts=PROMPTS,
            training={},
            probe_cases=4,
        )
        return report.folder

    return make
