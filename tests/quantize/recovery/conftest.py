"""A tiny base, its forms in 4 and 8 bits, and rows of tokens to calibrate and to measure with."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import pytest

from bases.resolve import ResolvedBase, resolve_base
from bases.tiny import TINY_VOCAB_SIZE, make_tiny_base

ROW_TOKENS = 32


def quantise(original: Path, folder: Path, scheme: str) -> Path:
    """The base in `original` rounded to nearest by llmcompressor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # llmcompressor's own
        from llmcompressor import oneshot
        from llmcompressor.modifiers.quantization import QuantizationModifier

        recipe = QuantizationModifier(scheme=scheme, targets="Linear", ignore=["lm_head"])
        oneshot(model=str(original), recipe=recipe, output_dir=str(folder))
    return folder


def quiet(_: str) -> None:
    """For what is told to nobody."""


def random_rows(count: int, seed: int) -> list[list[int]]:
    """Rows of tokens that follow a pattern with noise, so that held-out rows are like the others."""
    source = random.Random(seed)
    rows = []
    for _ in range(count):
        row = [source.randrange(3, TINY_VOCAB_SIZE)]
        while len(row) < ROW_TOKENS:
            row.append(source.randrange(3, 40) if source.random() < 0.5 else (7 * row[-1]) % TINY_VOCAB_SIZE)
        rows.append(row)
    return rows


@pytest.fixture(scope="session")
def recovery_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory, recovery_home: Path) -> ResolvedBase:
    folder = make_tiny_base(tmp_path_factory.mktemp("original") / "tiny")
    return resolve_base(str(folder), home=recovery_home)


@pytest.fixture(scope="session")
def four_bits(
    original: ResolvedBase, recovery_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> ResolvedBase:
    folder = quantise(original.path, tmp_path_factory.mktemp("quantised") / "tiny-w4a16", "W4A16")
    return resolve_base(str(folder), home=recovery_home)


@pytest.fixture(scope="session")
def eight_bits(
    original: ResolvedBase, recovery_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> ResolvedBase:
    folder = quantise(original.path, tmp_path_factory.mktemp("quantised") / "tiny-w8a8", "W8A8")
    return resolve_base(str(folder), home=recovery_home)


@pytest.fixture(scope="session")
def rows() -> list[list[int]]:
    return random_rows(512, seed=1)


@pytest.fixture(scope="session")
def held_out() -> list[list[int]]:
    return random_rows(12, seed=2)
