"""Quantised bases in a running vLLM, with adapters on top: its answers are those of the dequantised weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from bases.processor import read_cpuinfo
from tests.serve.engine.cpu.quantised_batch import PROMPTS
from tests.serve.engine.cpu.quantised_llama import SCHEMES, write_adapter, write_quantised

REPOSITORY = Path(__file__).parents[4]
NUM_ADAPTERS = 2
MAX_DIFFERENCE = 2e-3  # nats; sums are made in another order

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif("avx2" not in read_cpuinfo()[0], reason="vLLM's CPU build needs AVX2"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with another scheme in every layer, one of W8A8 alone, and adapters for the first."""
    folder = tmp_path_factory.mktemp("quantised")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # llm-compressor's own
        write_quantised(folder / "mixed", list(SCHEMES), tied=True)
        write_quantised(folder / "w8a8", ["w8a8"])
        write_quantised(folder / "w4a16", ["w4a16"])
    for number in range(NUM_ADAPTERS):
        write_adapter(folder / f"adapter{number}", seed=number, rank=4, num_layers=len(SCHEMES))
    return folder


def run_engine(base: Path, adapters: list[Path], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.serve.engine.cpu.quantised_batch",
            str(base / "quantised"),
            "float32",
            *map(str, adapters),
        ],
        cwd=REPOSITORY,
        env={**os.environ, "HOTSWAP_CPU_KERNELS": "auto", **environment},
        capture_output=True,
        text=True,
        timeout=250,
    )


def answers(finished: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert finished.returncode == 0, finished.stderr[-3000:]
    found: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def reference(models: Path):
    """Logprobs of a text under the dequantised weights, inputs rounded where the scheme rounds them."""
    import torch

    from bases.resolve import ResolvedBase
    from quantize.quality.served_model import load_as_served

    folder = models / "mixed" / "quantised"
    model = load_as_served(ResolvedBase("mixed", str(folder), folder, None, "folder"))
    for number in range(NUM_ADAPTERS):
        _add_adapter(model, models / f"adapter{number}", number)

    def logprobs(tokens: list[int], adapter: int | None) -> Any:
        _ACTIVE["adapter"] = adapter
        with torch.no_grad():
            return model(torch.tensor([tokens])).logits[0].log_softmax(-1)

    return logprobs


_ACTIVE: dict[str, int | None] = {"adapter": None}


def _add_adapter(model: Any, folder: Path, number: int) -> None:
    """Add the adapter's product to the outputs of its layers while it is the active one."""
    from safetensors.torch import load_file

    tensors = load_file(folder / "adapter_model.safetensors")
    for name, module in model.named_modules():
        key = f"base_model.model.{name}.lora_A.weight"
        if key in tensors:
            a, b = tensors[key], tensors[key.replace("lora_A", "lora_B")]
            module.register_forward_hook(_adding(a, b, number))


def _adding(a: Any, b: Any, number: int) -> Any:
    def hook(_module: Any, inputs: Any, output: Any) -> Any:
        return output + inputs[0] @ a.t() @ b.t() if _ACTIVE["adapter"] == number else output

    return hook


@pytest.mark.parametrize("isa", ["avx2", ""], ids=["avx2", "native"])
def test_every_scheme_answers_as_its_dequantised_weights_beside_adapters(models, reference, isa):
    adapters = [models / f"adapter{number}" for number in range(NUM_ADAPTERS)]
    found = answers(run_engine(models / "mixed", adapters, HOTSWAP_CPU_PATCHES="all", HOTSWAP_CPU_ISA=isa))
    cases = [(prompt, adapter) for adapter in (None, *range(NUM_ADAPTERS)) for prompt in PROMPTS]
    assert len(found["mixed"]) == len(cases)
    for (prompt, adapter), answer in zip(cases, found["mixed"], strict=True):
        text = [*prompt, *answer["tokens"]]
        expected = reference(text[:-1], adapter)[len(prompt) - 1 :]
        for step, (token, logprob) in enumerate(zip(answer["tokens"], answer["logprobs"], strict=True)):
            assert logprob == pytest.approx(float(expected[step, token]), abs=MAX_DIFFERENCE)
            assert float(expected[step].max() - expected[step, token]) < MAX_DIFFERENCE  # greedy, up to ties
    # Alone they say the same, and the adapters do change what is said.
    alone = [answer["tokens"] for answer in found["alone"]]
    mixed = [answer["tokens"] for answer in found["mixed"]]
    assert alone == mixed[:: len(PROMPTS)]
    assert alone[0] != alone[1] != alone[2]
    weight_only = sum("a16" in scheme for scheme in SCHEMES)
    assert found["kernels"]["HotswapWNA16LinearKernel"] == 4 * weight_only  # vLLM joins q, k, v and gate, up
    assert sum(found["kernels"].values()) == 4 * len(SCHEMES)


def test_vllm_by_itself_still_dies_of_4_bits_without_avx512(models):
    finished = run_engine(models / "w4a16", [], HOTSWAP_CPU_PATCHES="", HOTSWAP_CPU_ISA="avx2")
    gone = "vLLM mends this itself now: remove serve/engine/cpu/lowbit_wna16.py and its entry"
    assert finished.returncode != 0, gone
    assert "'_C' object has no attribute 'cpu_gemm_wna16'" in finished.stderr


def test_vllms_own_w8a8_kernel_serves_with_adapters_enabled(models):
    found = answers(
        run_engine(models / "w8a8", [], HOTSWAP_CPU_PATCHES="lora-device", HOTSWAP_CPU_KERNELS="vllm")
    )
    assert found["kernels"] == {"CPUInt8ScaledMMLinearKernel": 4}
