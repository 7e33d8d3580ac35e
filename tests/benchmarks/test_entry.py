"""What measurements have in common as commands."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer

from benchmarks import entry
from benchmarks.errors import BenchmarkError, PlanError

STARTED = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)


def test_a_command_line_can_be_called_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["somewhere/__main__.py", "--base", "a folder"])
    assert entry.command_line("agreement") == "python -m benchmarks.agreement --base 'a folder'"


def test_results_go_where_they_are_wanted_or_into_a_folder_of_that_time(tmp_path: Path) -> None:
    assert entry.result_folder("agreement", STARTED, tmp_path) == tmp_path
    assert entry.result_folder("agreement", STARTED).parts[-4:] == (
        "build",
        "bench",
        "agreement",
        "20260203T040506Z",
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [(BenchmarkError("no server"), 1), (PlanError("no rounds"), 2), (KeyboardInterrupt(), 130)],
)
def test_what_cannot_be_measured_is_a_message_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def measure() -> None:
        raise error

    monkeypatch.setattr(entry, "end_on_sigterm", lambda: None)
    monkeypatch.setattr(sys, "argv", ["agreement"])
    with pytest.raises(SystemExit) as ended:
        entry.run_app(app, "agreement")
    assert ended.value.code == code
    assert ("agreement: " + str(error) in capsys.readouterr().err) == (code != 130)
