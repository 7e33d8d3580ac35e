"""Settings of a measurement, checked before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.load.errors import LoadOptionError
from benchmarks.load.settings import load_bench_settings


def test_results_that_could_not_be_written_are_refused_before_the_load(tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(LoadOptionError, match=r"results cannot be written .*; name another folder"):
        load_bench_settings(out=tmp_path / "a file" / "results")
    load_bench_settings(out=tmp_path / "new" / "results")
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]
