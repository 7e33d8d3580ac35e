"""What outside tools are asked, and how their files are read."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.agreement.aiperf import AIPERF
from benchmarks.agreement.errors import ToolRunError
from benchmarks.agreement.guidellm import GUIDELLM
from benchmarks.agreement.tool import Tool
from benchmarks.agreement.workload import Reading, Workload
from benchmarks.load.workload.arrivals import parse_arrivals

CLOSED = Workload(
    url="http://127.0.0.1:8000",
    model="base",
    tokenizer=Path("/bases/one"),
    arrivals=parse_arrivals("closed:4"),
    seconds=20.0,
    prompt_tokens=64,
    answer_tokens=32,
    seed=7,
)
OPEN = replace(CLOSED, arrivals=parse_arrivals("constant:2.5"))


def after(command: Sequence[str], flag: str) -> str:
    return command[list(command).index(flag) + 1]


def test_guidellm_gets_the_same_pace_lengths_and_seed() -> None:
    closed, open_ = (GUIDELLM.command(workload, Path("/out")) for workload in (CLOSED, OPEN))
    assert after(closed, "--profile") == "kind=concurrent,streams=4"
    assert after(open_, "--profile") == "kind=constant,rate=2.5"
    assert after(closed, "--data") == "kind=synthetic_text,prompt_tokens=64,output_tokens=32"
    assert after(closed, "--seed") == "kind=static,value=7"
    assert "request_format=/v1/completions" in after(closed, "--backend")


def test_aiperf_gets_the_same_pace_lengths_and_seed() -> None:
    closed, open_ = (AIPERF.command(workload, Path("/out")) for workload in (CLOSED, OPEN))
    assert after(closed, "--concurrency") == "4"
    assert (after(open_, "--request-rate"), after(open_, "--arrival-pattern")) == ("2.5", "constant")
    assert (after(closed, "--isl"), after(closed, "--osl")) == ("64", "32")
    assert after(closed, "--random-seed") == "7"
    assert "ignore_eos:true" in closed
    assert "--use-server-token-count" in closed


def guidellm_result() -> dict[str, Any]:
    def p50(value: float) -> dict[str, Any]:
        return {"successful": {"percentiles": {"p50": value}}}

    metrics = {
        "request_totals": {"successful": 8, "errored": 1},
        "time_to_first_token_ms": p50(200.0),
        "inter_token_latency_ms": p50(30.0),
        "time_per_output_token_ms": p50(35.3),
        "prompt_token_count": p50(64.0),
    }
    return {"benchmarks": [{"metrics": metrics}]}


def aiperf_result() -> dict[str, Any]:
    names = {"time_to_first_token": 200.0, "inter_token_latency": 30.0, "inter_chunk_latency": 29.0}
    found: dict[str, Any] = {name: {"unit": "ms", "p50": value} for name, value in names.items()}
    return {
        **found,
        "input_sequence_length": {"p50": 64.0},
        "request_count": {"avg": 8.0},
        "error_request_count": {"avg": 1.0},
    }


@pytest.mark.parametrize(("tool", "result"), [(GUIDELLM, guidellm_result()), (AIPERF, aiperf_result())])
def test_what_they_call_itl_is_read_as_our_tpot(tool: Tool, result: dict[str, Any]) -> None:
    found = tool.read(result)
    assert (found.requests, found.failed) == (8, 1)
    assert found.ttft_seconds == pytest.approx(0.2)
    assert found.tpot_seconds == pytest.approx(0.03)
    assert found.prompt_tokens == 64.0


def program(folder: Path, text: str) -> Tool:
    """A tool called `stub` whose program is `text`, in Python."""
    path = folder / "stub"
    path.write_text(f"#!{sys.executable}\n{text}\n")
    path.chmod(0o755)
    return replace(
        GUIDELLM,
        name="stub",
        command=lambda _, out: (str(out / "stub.json"),),
        result="stub.json",
        read=lambda found: Reading(1, 0, found["ttft"], 0.03, 64.0, {}),
    )


def test_a_tool_is_run_and_its_file_read(tmp_path: Path) -> None:
    tool = program(tmp_path, "import sys; open(sys.argv[1], 'w').write('{\"ttft\": 0.25}')")
    assert tool.run(tmp_path, CLOSED, tmp_path / "out").ttft_seconds == 0.25


def test_a_tool_without_figures_says_why(tmp_path: Path) -> None:
    tool = program(tmp_path, "raise SystemExit('no such option')")
    with pytest.raises(ToolRunError, match=r"(?s)exit code 1 and without figures.*no such option"):
        tool.run(tmp_path, CLOSED, tmp_path / "out")
