"""A folder is made whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bases.errors import BaseConversionError
from bases.place import made_in_place
from tests.full_disk import files_no_larger_than


def test_what_the_block_writes_is_there_when_it_ends_and_readable_by_all(tmp_path: Path) -> None:
    folder = tmp_path / "below" / "made"
    with made_in_place(folder) as partial:
        (partial / "file").write_text("x")
        (partial / "file").chmod(0o600)
        assert not folder.exists()
    assert (folder / "file").stat().st_mode & 0o777 == 0o644
    assert [path.name for path in folder.parent.iterdir()] == ["made"]


def test_a_block_that_raises_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"), made_in_place(tmp_path / "made") as partial:
        (partial / "file").write_text("x")
        raise ValueError("broken")
    assert not list(tmp_path.iterdir())


def test_what_exists_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    with (
        pytest.raises(BaseConversionError, match="nothing is overwritten"),
        made_in_place(tmp_path / "made"),
    ):
        pass
    with pytest.raises(BaseConversionError, match="nothing is overwritten"), made_in_place(tmp_path / "late"):
        (tmp_path / "late").mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["late", "made"]


def test_what_a_killed_process_left_is_removed_and_said(tmp_path: Path) -> None:
    pid = 2**22 + 1  # above the largest pid that Linux gives
    (tmp_path / f".made.partial-{pid}").mkdir()
    said: list[str] = []
    with made_in_place(tmp_path / "made", progress=said.append):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert any("interrupted" in line for line in said)


def test_another_process_at_the_same_folder_is_waited_for_by_the_user(tmp_path: Path) -> None:
    with made_in_place(tmp_path / "made") as partial:
        with (
            pytest.raises(BaseConversionError, match="Another process is making"),
            made_in_place(tmp_path / "made"),
        ):
            pass
        assert partial.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_folder_is_replaced_in_one_step_and_stays_where_the_block_raises(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "old").touch()
    with pytest.raises(ValueError, match="broken"), made_in_place(folder, replace=True):
        raise ValueError("broken")
    assert [path.name for path in folder.iterdir()] == ["old"]
    with made_in_place(folder, replace=True) as partial:
        (partial / "new").touch()
        assert (folder / "old").exists()
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_full_disk_is_one_message_and_what_was_there_stays(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "old").touch()
    with (
        pytest.raises(
            BaseConversionError, match=r"made cannot be written: File too large\. Free space there"
        ),
        made_in_place(folder, replace=True) as partial,
        files_no_larger_than(1000),
    ):
        save_file({"values": np.zeros(1000)}, partial / "weights")
    assert [path.name for path in tmp_path.rglob("*")] == ["made", "old"]
