"""What a host lacks is told at once, and the device is chosen for a reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scripts.preflight import choose_device, find_problems, has_library


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for nvidia-smi, first on PATH."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return program


@pytest.mark.parametrize(
    ("script", "device"),
    [
        ("echo 'GPU 0: NVIDIA H100 (UUID: GPU-1)'", "gpu"),
        ("echo 'No devices were found'", "cpu"),
        ("echo 'GPU 0: lost'; exit 9", "cpu"),
    ],
)
def test_auto_takes_the_gpu_only_where_nvidia_smi_lists_one(
    nvidia_smi: Path, script: str, device: str
) -> None:
    nvidia_smi.write_text(f"#!/bin/sh\n{script}\n")
    nvidia_smi.chmod(0o755)
    assert choose_device("auto", None)[0] == device


def test_auto_keeps_what_is_there_and_a_named_device_wins(nvidia_smi: Path) -> None:
    nvidia_smi.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H100'\n")
    nvidia_smi.chmod(0o755)
    assert choose_device("auto", "cpu")[0] == "cpu"
    assert choose_device("gpu", "cpu") == ("gpu", "DEVICE=gpu")
    assert choose_device("cpu", None)[0] == "cpu"


def test_every_lack_of_the_host_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.preflight.has_library", lambda _: False)
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr("scripts.preflight.NEEDED_BYTES", {"cpu": 2**60})
    problems = find_problems("cpu", tmp_path)
    assert len(problems) == 3
    assert "arm64" in problems[0]
    assert "apt-get install libnuma1" in problems[1]
    assert "GiB free" in problems[2]


def test_a_shared_library_is_found_by_its_name() -> None:
    assert has_library("libc.so.6")
    assert not has_library("libhotswap-no-such.so.1")
