"""The shorter paths through vLLM's layers in a running engine: the answers are those of vLLM's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serve.engine.cpu.tiny_llama import NUM_LAYERS, write_adapter, write_base

REPOSITORY = Path(__file__).parents[4]

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        "avx512" not in Path("/proc/cpuinfo").read_text() and "avx2" not in Path("/proc/cpuinfo").read_text(),
        reason="vLLM's CPU build needs AVX2",
    ),
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_answers_are_the_same_with_shorter_paths_and_without(tmp_path: Path, dtype: str):
    write_base(tmp_path / "base")
    write_adapter(tmp_path / "plain", seed=1, rank=4)
    write_adapter(tmp_path / "with_lm_head", seed=2, rank=8, on_lm_head=True)
    finished = subprocess.run(
        [sys.executable, "-m", "tests.serve.engine.cpu.shorter_paths", str(tmp_path), dtype],
        cwd=REPOSITORY,
        env={**os.environ, "HOTSWAP_CPU_PATCHES": "all"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    found = json.loads(finished.stdout.splitlines()[-1])

    assert found["shortened"] == {
        "MergedQKVParallelLinearWithLoRA": NUM_LAYERS,
        "RowParallelLinearWithLoRA": 2 * NUM_LAYERS,
        "MergedColumnParallelLinearWithLoRA": NUM_LAYERS,
        "Attention": NUM_LAYERS,
        "RotaryEmbedding": 1,
        "RMSNorm": 2 * NUM_LAYERS + 1,
        "SiluAndMul": NUM_LAYERS,
        "LlamaDecoderLayer": NUM_LAYERS,
    }
    assert found["left"] == {}
    for short, long in zip(found["short"], found["long"], strict=True):
        assert short["tokens"] == long["tokens"]
        assert short["logprobs"] == pytest.approx(long["logprobs"], abs=1e-4)
    # Without adapters at work there would be nothing to mix up.
    assert found["short"][0]["tokens"] != found["short"][1]["tokens"] != found["short"][2]["tokens"]
