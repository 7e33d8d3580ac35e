"""What is read of the machine before the engine starts."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from serve.engine.vllm.machine import read_machine

_PROJECT = Path(__file__).resolve().parents[4]


@pytest.mark.skipif(
    not importlib.metadata.version("torch").endswith("+cpu"), reason="another torch has to be asked for GPUs"
)
def test_a_torch_for_cpus_is_known_without_its_import() -> None:
    """It takes seconds, in which the engine's imports could have begun."""
    code = (
        "import sys; from serve.engine.vllm.machine import read_machine; "
        "print(read_machine().device, 'torch' in sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=_PROJECT, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["cpu", "False"]


def test_another_torch_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.engine.vllm.machine.importlib.metadata.version", lambda _: "2.13.0+cu130")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert read_machine().device == "cuda"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert read_machine().device == "cpu"
