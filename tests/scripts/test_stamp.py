"""The stamp reads back, whatever is in it, and a broken one counts as none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.stamp import STAMP_NAME, Stamp, read_stamp, write_stamp

STAMPS = st.builds(
    Stamp,
    device=st.sampled_from(["cpu", "gpu"]),
    folder=st.text(min_size=1),
    lock_digest=st.text("0123456789abcdef"),
    project_digest=st.text("0123456789abcdef"),
    packages=st.lists(st.text("abc-", min_size=1)).map(tuple),
)


@given(STAMPS)
def test_a_stamp_reads_back_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, stamp: Stamp) -> None:
    folder = tmp_path_factory.mktemp("environment")
    write_stamp(folder, stamp)
    assert read_stamp(folder) == stamp
    assert [file.name for file in folder.iterdir()] == [STAMP_NAME]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"device": "cpu"}', '{"packages": 3}'])
def test_a_stamp_that_cannot_be_read_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / STAMP_NAME).write_text(content)
    assert read_stamp(tmp_path) is None
