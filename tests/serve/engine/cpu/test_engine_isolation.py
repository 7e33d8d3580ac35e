"""Mixed batches in a running vLLM: wrong as it is, right with the mends of serve/engine/cpu."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serve.engine.cpu.tiny_llama import write_adapter, write_base

REPOSITORY = Path(__file__).parents[4]

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        "avx512" not in Path("/proc/cpuinfo").read_text() and "avx2" not in Path("/proc/cpuinfo").read_text(),
        reason="vLLM's CPU build needs AVX2",
    ),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_base(folder / "base")
    write_adapter(folder / "plain", seed=1, rank=4)
    write_adapter(folder / "with_lm_head", seed=2, rank=8, on_lm_head=True)
    write_adapter(folder / "newcomer", seed=3, rank=2)
    return folder


def run_engine(models: Path, parts: str):
    """The logprobs that `mixed_batch` finds with HOTSWAP_CPU_PATCHES=`parts`."""
    finished = subprocess.run(
        [sys.executable, "-m", "tests.serve.engine.cpu.mixed_batch", str(models)],
        cwd=REPOSITORY,
        env={**os.environ, "HOTSWAP_CPU_PATCHES": parts},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return json.loads(finished.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def stock(models: Path):
    """What vLLM gives by itself."""
    return run_engine(models, "")


def close(values: list[float]):
    return pytest.approx(values, abs=2e-4)


@pytest.mark.parametrize("parts", ["lora-isolation", "lora-compiled"])
def test_with_the_mend_no_request_notices_its_neighbours(models, stock, parts):
    found = run_engine(models, parts)
    assert found["base_after_adapters"] == close(found["base_before_adapters"])
    assert found["mixed"][0] == close(found["base_before_adapters"])
    assert found["mixed"][1:] == [close(values) for values in found["alone"]]
    assert "prompt_mixed_error" not in found
    assert found["prompt_mixed"][0] == close(found["prompt_before_adapters"])
    assert found["prompt_mixed"][1:] == [close(values) for values in found["prompt_alone"]]
    # vLLM's own results are right for one request at a time, and adapters that change places stay right.
    assert found["alone"] == [close(values) for values in stock["alone"]]
    assert found["swapped"] == [close(values) for values in stock["swapped"]]
    assert found["swapped"][1:] == [close(values) for values in found["alone"]]
    assert found["renewed"] == close(found["swapped"][0])
    # The adapters do something, or all of the above would be empty words.
    assert found["alone"][0] != close(found["base_before_adapters"])
    assert found["alone"][1] != close(found["base_before_adapters"])


def test_vllm_by_itself_still_has_the_defects(stock):
    gone = "vLLM mends this itself now: remove {} and its entry in docs/upstream-defects.md"
    base = pytest.approx(stock["base_before_adapters"], abs=1e-2)
    assert stock["mixed"][0] != base, gone.format("serve/engine/cpu/lora_isolation.py")
    assert stock["base_after_adapters"] != base, gone.format("the logits part of lora_isolation.py")
    assert "prompt_mixed_error" in stock, gone.format("serve/engine/cpu/logit_rows.py")
