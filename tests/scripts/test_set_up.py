"""The default base is made once, one set-up runs at a time, and only a right Python runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from scripts.set_up import BASE_MEMO_NAME, _base_is_there, _only_set_up

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def test_a_python_that_the_locks_are_not_for_is_refused_with_the_way_out(tmp_path: Path) -> None:
    old = tmp_path / "python3.8"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.8.18\nexit 1\n')
    old.chmod(0o755)
    done = subprocess.run(
        ["sh", "scripts/with_python.sh", "-c", "print('ran')"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHON": str(old)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Hotswap needs Python 3.11 or 3.12" in done.stderr
    assert "Python 3.8.18" in done.stderr
    assert done.stdout == ""


def test_the_default_base_is_looked_for_again_when_home_or_conversion_or_a_file_changed(
    tmp_path: Path,
) -> None:
    memo = tmp_path / BASE_MEMO_NAME
    key = {"home": "", "conversion": "1"}
    base = tmp_path / "base"
    base.mkdir()
    assert not _base_is_there(memo, key)
    memo.write_text(json.dumps({**key, "folder": str(base)}))
    assert not _base_is_there(memo, key)
    for name in ("config.json", "model.safetensors"):
        (base / name).write_text("{}")
    assert _base_is_there(memo, key)
    assert not _base_is_there(memo, {**key, "home": "elsewhere"})
    assert not _base_is_there(memo, {**key, "conversion": "2"})
    (base / "model.safetensors").unlink()
    assert not _base_is_there(memo, key)


def test_a_second_set_up_in_the_same_checkout_waits_for_the_first(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from scripts.set_up import _only_set_up\n"
        f"with _only_set_up(Path({str(tmp_path)!r})): print('in', flush=True)"
    )
    with _only_set_up(tmp_path):
        second = subprocess.Popen(
            [sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        assert second.stdout is not None
        assert second.stdout.readline().startswith("Another set-up is running")
        assert second.poll() is None
    rest, _ = second.communicate(timeout=30)
    assert rest == "in\n"
