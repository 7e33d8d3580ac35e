"""What a report says of the command that made it."""

from __future__ import annotations

import sys

import pytest

from benchmarks.load.commands.finish import command_line


@pytest.mark.parametrize("flag", ["--key", "--admin-key"])
def test_keys_are_not_told_however_they_were_given(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "argv", ["hotswap", "bench", "run", flag, "secret", f"{flag}=secret", "--out", "a b"]
    )
    assert command_line() == f"hotswap bench run {flag} ... {flag}=... --out 'a b'"
