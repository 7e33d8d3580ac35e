"""What is read of a processor, from files written for the purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

from bases.processor import read_cpuinfo

AMD = """processor\t: 0
model name\t: Old One
flags\t\t: fpu avx2

processor\t: 1
model name\t: Other
flags\t\t: amx_bf16
"""
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd bf16\n"


@pytest.mark.parametrize(
    ("text", "flag", "present"),
    [(AMD, "avx2", True), (AMD, "amx_bf16", False), (ARM, "bf16", True), ("", "avx2", False)],
)
def test_the_first_processor_stands_for_all(tmp_path: Path, text: str, flag: str, present: bool) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    flags, _ = read_cpuinfo(path)
    assert (flag in flags) == present


def test_the_processors_name_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(AMD)
    assert read_cpuinfo(path)[1] == "Old One"


def test_a_system_without_the_file_has_no_flags(tmp_path: Path) -> None:
    flags, processor = read_cpuinfo(tmp_path / "missing")
    assert flags == frozenset()
    assert processor
