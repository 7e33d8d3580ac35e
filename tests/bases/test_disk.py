"""What each library raises when a file cannot be written is an OSError in the end, and nothing else is."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer, models

from bases.disk import check_writable, disk_errors, why_unwritten
from tests.full_disk import files_no_larger_than


def save_tensors(path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"values": np.zeros(100_000, dtype=np.float32)}, path)


def save_with_torch(path: Path) -> None:
    torch.save({"values": torch.zeros(100_000)}, path)


def save_tokenizer(path: Path) -> None:
    Tokenizer(models.BPE(vocab={str(number): number for number in range(10_000)}, merges=[])).save(str(path))


def save_text(path: Path) -> None:
    path.write_text("x" * 100_000)


WRITERS = [save_tensors, save_with_torch, save_tokenizer, save_text]


@pytest.mark.parametrize("write", WRITERS)
def test_a_file_that_may_not_grow_is_an_error_of_the_disk(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    with pytest.raises(OSError) as refused, disk_errors(), files_no_larger_than(50_000):
        write(tmp_path / "file")
    assert refused.value.errno in (errno.EFBIG, errno.EIO)
    assert "Free space there, or name another place" in why_unwritten(refused.value)


@pytest.mark.parametrize("write", WRITERS)
def test_so_is_a_folder_that_is_not_there(write: Callable[[Path], None], tmp_path: Path) -> None:
    with pytest.raises(OSError), disk_errors():
        write(tmp_path / "missing" / "file")


@pytest.mark.parametrize("write", WRITERS)
def test_what_can_be_written_is(write: Callable[[Path], None], tmp_path: Path) -> None:
    with disk_errors():
        write(tmp_path / "file")
    assert (tmp_path / "file").stat().st_size > 50_000


def test_other_errors_pass_through(tmp_path: Path) -> None:
    (tmp_path / "broken").write_bytes(b"\xff" * 100)
    with pytest.raises(SafetensorError), disk_errors(), safe_open(tmp_path / "broken", framework="np"):
        pass
    with pytest.raises(RuntimeError, match="shape"), disk_errors():
        raise RuntimeError("the shapes do not fit: shape [2] is not [3]")


def test_a_place_that_is_forbidden_is_no_matter_of_space() -> None:
    text = why_unwritten(PermissionError(errno.EACCES, "Permission denied", "/somewhere"))
    assert text == "Permission denied. See that this user may write there, or name another place."


def test_a_place_that_takes_files_is_told_from_one_that_does_not_and_left_as_it_was(tmp_path: Path) -> None:
    check_writable(tmp_path / "not" / "there")
    with pytest.raises(OSError, match="File too large") as refused, files_no_larger_than(100):
        check_writable(tmp_path)
    assert refused.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a file").touch()
    with pytest.raises(NotADirectoryError):
        check_writable(tmp_path / "a file")
