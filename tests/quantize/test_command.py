"""`hotswap quantize` on the command line: the table, and one message for everything that is wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hotswap
from quantize import preflight

WIDE = {"COLUMNS": "250", "TERM": "dumb", "NO_COLOR": "1"}
SMALL = ("--samples", "16", "--row-tokens", "64", "--held-out-rows", "2")


@pytest.fixture
def refuse(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], quantise_home: Path
) -> Callable[..., str]:
    """Runs the real entry point, wants exit code 1 and no traceback, and gives the message."""

    def run(*arguments: str) -> str:
        monkeypatch.setenv("HOTSWAP_HOME", str(quantise_home))
        monkeypatch.setattr(sys, "argv", ["hotswap", "quantize", *arguments])
        with pytest.raises(SystemExit) as ended:
            hotswap.main()
        assert ended.value.code == 1
        said = capsys.readouterr().err
        message = said[said.index("hotswap: ") :]
        assert "Traceback" not in said
        assert message.count("hotswap: ") == 1
        return message

    return run


def test_a_run_ends_with_its_figures_and_what_to_type_next(tiny_original: Path, quantise_home: Path) -> None:
    result = CliRunner().invoke(
        hotswap.app,
        ["quantize", str(tiny_original), "--scheme", "int8-w8a8", *SMALL],
        env={**WIDE, "HOTSWAP_HOME": str(quantise_home), "HOTSWAP_QUANTIZE_FORCE": "1"},
    )
    assert result.exit_code == 0, result.output
    for row in ("weights on disk", "perplexity", "KL divergence", "16 rows of 64 tokens = 1,024", "time"):
        assert row in result.stdout
    assert result.stdout.endswith("Next: hotswap serve --base tiny-int8-w8a8\n")


def test_a_base_that_is_not_there(refuse: Callable[..., str]) -> None:
    assert "There is no base 'no-such-base'" in refuse("no-such-base")


def test_a_scheme_that_is_not_there(refuse: Callable[..., str], tiny_original: Path) -> None:
    assert "There is no scheme 'w3'" in refuse(str(tiny_original), "--scheme", "w3")


def test_a_group_size_that_divides_nothing(refuse: Callable[..., str], tiny_original: Path) -> None:
    message = refuse(str(tiny_original), "--group-size", "96")
    assert "Group size 96 does not divide" in message
    assert "128 or 64 or 32 would" in message


def test_a_base_that_is_quantised_already(
    refuse: Callable[..., str], tiny_quantised: Callable[[str], Path]
) -> None:
    assert "is quantised already" in refuse(str(tiny_quantised("rtn-w4a16")))


def test_no_space(
    refuse: Callable[..., str], tiny_original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1

    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: Usage)  # type: ignore[attr-defined]
    assert "of disk are needed" in refuse(str(tiny_original), "--out", str(tmp_path / "small"))
    assert not list(tmp_path.iterdir())


def test_a_calibration_file_with_three_lines(
    refuse: Callable[..., str], tiny_original: Path, tmp_path: Path
) -> None:
    data = tmp_path / "three.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"Say {n}", "completion": "yes"}) + "\n" for n in range(3)))
    message = refuse(str(tiny_original), "--data", str(data), "--out", str(tmp_path / "small"), *SMALL)
    assert "tokens" in message
    assert [path.name for path in tmp_path.iterdir()] == ["three.jsonl"]


def test_an_activation_order_that_is_not_served(refuse: Callable[..., str], tiny_original: Path) -> None:
    assert "--activation-order" in refuse(str(tiny_original), "--activation-order", "group")


def test_a_setting_of_recovery_without_recovery(refuse: Callable[..., str], tiny_original: Path) -> None:
    assert "--recover-rank without --recover" in refuse(str(tiny_original), "--recover-rank", "8")


def test_an_output_layer_measured_on_few_tokens_does_not_pass_and_makes_nothing(
    refuse: Callable[..., str], tiny_original: Path, quantise_home: Path
) -> None:
    arguments = (str(tiny_original), "--lm-head-bits", "8", "--row-tokens", "64", "--held-out-rows", "2")
    assert "It does not pass, and will not be served so: 126 tokens are fewer" in refuse(*arguments)
    assert len(list((quantise_home / "quantize" / "lm-head-8").iterdir())) == 1
