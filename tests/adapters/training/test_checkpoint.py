"""Checkpoints are whole or not taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.training.checkpoint import (
    STAGING_NAME,
    checkpoints,
    is_whole,
    newest_whole,
    place_checkpoint,
    remove_old,
    seal_checkpoint,
)


def make(root: Path, step: int) -> Path:
    staged = root / STAGING_NAME / f"checkpoint-{step}"
    (staged / "deeper").mkdir(parents=True)
    (staged / "weights").write_bytes(b"w" * step)
    (staged / "deeper" / "state").write_bytes(b"state")
    seal_checkpoint(staged)
    return place_checkpoint(staged, root)


def test_the_newest_whole_one_is_found_by_number(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        make(tmp_path, step)
    assert [step for step, _ in checkpoints(tmp_path)] == [9, 10, 100]
    assert newest_whole(tmp_path) == (tmp_path / "checkpoint-100", [])


@pytest.mark.parametrize("damage", ["cut", "missing file", "missing list", "broken list"])
def test_a_damaged_one_is_passed_over(tmp_path: Path, damage: str) -> None:
    make(tmp_path, 5)
    newest = make(tmp_path, 6)
    if damage == "cut":
        (newest / "weights").write_bytes(b"w" * 5)
    elif damage == "missing file":
        (newest / "deeper" / "state").unlink()
    elif damage == "missing list":
        (newest / "contents.json").unlink()
    else:
        (newest / "contents.json").write_text("{")
    assert not is_whole(newest)
    assert newest_whole(tmp_path) == (tmp_path / "checkpoint-5", [newest])


def test_what_was_never_placed_is_not_seen(tmp_path: Path) -> None:
    staged = tmp_path / STAGING_NAME / "checkpoint-3"
    staged.mkdir(parents=True)
    (staged / "weights").write_bytes(b"w")
    assert newest_whole(tmp_path) == (None, [])
    assert newest_whole(tmp_path / "none") == (None, [])


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    make(tmp_path, 4)
    (tmp_path / "checkpoint-4" / "weights").write_bytes(b"old")
    place = make(tmp_path, 4)
    assert is_whole(place)


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        make(tmp_path, step)
    remove_old(tmp_path, keep=2)
    assert [step for step, _ in checkpoints(tmp_path)] == [3, 4]
