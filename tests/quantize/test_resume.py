"""What interrupted runs keep is forgotten in time, and nothing else in the folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from quantize.resume import forget_others, place_key

LONG_AGO_SECONDS = 1_000_000_000.0


@pytest.fixture
def old_folder(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a folder of `<home>/quantize` that nobody came back to."""

    def make(name: str) -> Path:
        folder = tmp_path / "quantize" / name
        folder.mkdir(parents=True)
        os.utime(folder, (LONG_AGO_SECONDS, LONG_AGO_SECONDS))
        return folder

    return make


def test_layers_that_no_run_came_back_for_are_forgotten(
    tmp_path: Path, old_folder: Callable[[str], Path]
) -> None:
    kept = old_folder(f"{place_key(Path('elsewhere'))}-key")
    forget_others(tmp_path, tmp_path / "out", "mine")
    assert not kept.exists()


def test_layers_of_the_run_itself_stay_however_old(tmp_path: Path, old_folder: Callable[[str], Path]) -> None:
    out = tmp_path / "out"
    kept = old_folder(f"{place_key(out)}-mine")
    forget_others(tmp_path, out, "mine")
    assert kept.exists()


def test_measurements_of_output_layers_stay_however_old(
    tmp_path: Path, old_folder: Callable[[str], Path]
) -> None:
    """`serve --lm-head-bits 8` is refused without them."""
    measured = old_folder("lm-head-8")
    forget_others(tmp_path, tmp_path / "out", "mine")
    assert measured.exists()
