"""What `hotswap adapters push` writes where there is no terminal: what it has to say, and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import hotswap
from adapters.tiny import make_tiny_adapter
from bases.architecture import read_architecture
from bases.tiny import make_tiny_base


def test_a_push_that_fails_is_one_line(
    tmp_path: Path,
    unused_tcp_port: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    facts = read_architecture(make_tiny_base(tmp_path / "tiny"))
    adapter = make_tiny_adapter(tmp_path / "risk", linear_modules=facts.linear_modules)
    url = f"http://127.0.0.1:{unused_tcp_port}"
    monkeypatch.setattr(sys, "argv", ["hotswap", "adapters", "push", "risk", str(adapter), "--url", url])
    with pytest.raises(SystemExit) as ended:
        hotswap.main()
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("hotswap: no gateway answers at")
    assert said.err.count("\n") == 1
