"""What a tool's command says, or why it says nothing."""

from __future__ import annotations

import sys

import pytest

from benchmarks.errors import BenchmarkError, ToolInstallError
from benchmarks.load.errors import PeerUnavailableError
from benchmarks.tool_command import output_of


def said(code: str, *, error: type[BenchmarkError] = ToolInstallError, seconds: float = 60.0) -> str:
    return output_of(
        [sys.executable, "-c", code],
        timeout_seconds=seconds,
        error=lambda reason: error(f"the tool {reason}"),
    )


def test_it_sees_nothing_that_points_at_our_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("HOTSWAP_OTHER", "kept")
    code = "import os; print(os.environ.get('PYTHONPATH'), os.environ['HOTSWAP_OTHER'])"
    assert said(code) == "None kept\n"


@pytest.mark.parametrize("error", [ToolInstallError, PeerUnavailableError])
def test_a_failure_is_the_callers_error_with_the_last_lines(error: type[BenchmarkError]) -> None:
    code = "import sys; print(*range(20), sep='\\n', file=sys.stderr); sys.exit(3)"
    with pytest.raises(error) as refused:
        said(code, error=error)
    assert str(refused.value) == "the tool ended with exit code 3:\n15\n16\n17\n18\n19"


def test_text_in_no_encoding_is_shown_all_the_same() -> None:
    assert "\N{REPLACEMENT CHARACTER}" in said("import sys; sys.stdout.buffer.write(b'\\xff\\n')")


def test_one_that_does_not_end_is_ended() -> None:
    with pytest.raises(ToolInstallError, match=r"did not end within 0\.5 s"):
        said("import signal; signal.pause()", seconds=0.5)


def test_one_that_is_not_there_is_named() -> None:
    with pytest.raises(ToolInstallError, match=r"cannot be started: .*no-such-tool"):
        output_of(["/no-such-tool"], timeout_seconds=5, error=ToolInstallError)
