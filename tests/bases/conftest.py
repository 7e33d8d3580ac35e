"""Shared by the tests of this room: a tiny base made once, copies of it to edit, a tiny GGUF."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bases.tiny import make_tiny_base
from tests.bases.tiny_gguf import write_tiny_gguf


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama base that no test may change."""
    return make_tiny_base(tmp_path_factory.mktemp("bases") / "tiny")


@pytest.fixture
def base_copy(tiny_base: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Makes copies of the tiny base that the test may change."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(tiny_base, tmp_path / name))

    return copy


@pytest.fixture(scope="session")
def tiny_gguf(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF of the embedded one's kind, small enough to convert in a moment."""
    return write_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", tokenizer_of=tiny_base)
