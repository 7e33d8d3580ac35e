"""A tiny base with tied embeddings, and its quantised forms, each made once a session."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from bases.resolve import resolve_base
from bases.tiny import make_tiny_base
from quantize.schemes.registry import SCHEMES
from quantize.settings import load_quantize_settings


@pytest.fixture(scope="session")
def tiny_original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama base, hidden size 128, intermediate 256, two layers. No test may change it."""
    return make_tiny_base(tmp_path_factory.mktemp("original") / "tiny", hidden_size=128, tied_embeddings=True)


@pytest.fixture(scope="session")
def quantise_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home in which the session's bases are made."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def tiny_quantised(tiny_original: Path, quantise_home: Path) -> Callable[[str], Path]:
    """Scheme -> folder of the tiny base in it, in groups of 64 where it has groups. No test may change it."""

    @functools.cache
    def make(scheme: str) -> Path:
        from quantize.run import quantize_base

        settings = load_quantize_settings(
            scheme=scheme,
            group_size=64 if SCHEMES[scheme].grouped else None,
            samples=16,
            row_tokens=64,
            held_out_rows=2,
            force=True,  # a test of the command may have made the same one
        )
        base = resolve_base(str(tiny_original), home=quantise_home)
        return quantize_base(base, settings=settings, home=quantise_home).folder

    return make
