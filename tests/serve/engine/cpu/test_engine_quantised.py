"""Quantised bases in a running vLLM, with adapters on top: its answers are those of the dequantised weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bases.processor import read_cpuinfo
from quantize.layout.checkpoint import write_gptq_layout
from serve.engine.cpu.lowbit import ops
from tests.serve.engine.cpu.quantised_batch import PROMPTS
from tests.serve.engine.cpu.quantised_llama import SCHEMES, write_adapter, write_quantised

REPOSITORY = Path(__file__).parents[4]
NUM_ADAPTERS = 2
SUMMED_OTHERWISE = 2e-4  # nats
# A sum in another order now and then rounds an input to the next integer. Wrong sums of W8A8 are off by 0.1.
ROUNDED_OTHERWISE = 1e-2
OTHER_SCALE = 3e-2  # vLLM's own W8A8 kernel divides by 127, the reference by 127.5
OWN_WNA16 = f"HotswapWNA16LinearKernel[{ops.available()}]"

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif("avx2" not in read_cpuinfo()[0], reason="vLLM's CPU build needs AVX2"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with another scheme in every layer, two of one scheme, one of them in two layouts, and adapters."""
    folder = tmp_path_factory.mktemp("quantised")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # llm-compressor's own
        write_quantised(folder / "mixed", list(SCHEMES), tied=True)
        write_quantised(folder / "w8a16", ["w8a16"])
        write_quantised(folder / "w4a16", ["w4a16"])
    write_gptq_layout(folder / "w8a16" / "quantised", folder / "w8a16" / "gptq")
    for number in range(NUM_ADAPTERS):
        write_adapter(folder / f"adapter{number}", seed=number, rank=4, num_layers=len(SCHEMES))
    write_adapter(folder / "w8a16" / "adapter", seed=9, rank=4, num_layers=1)
    return folder


def run_engine(base: Path, adapters: list[Path], **environment: str) -> subprocess.CompletedProcess[str]:
    """`quantised_batch` on a base, with this environment."""
    module = "tests.serve.engine.cpu.quantised_batch"
    return subprocess.run(
        [sys.executable, "-m", module, str(base), "float32", *map(str, adapters)],
        cwd=REPOSITORY,
        env={**os.environ, "HOTSWAP_CPU_PATCHES": "all", "HOTSWAP_CPU_KERNELS": "auto", **environment},
        capture_output=True,
        text=True,
        timeout=250,
    )


class Reference:
    """A quantised base in transformers: weights dequantised, inputs rounded where the scheme rounds them."""

    def __init__(self, folder: Path, adapters: list[Path]) -> None:
        from safetensors.torch import load_file

        from bases.resolve import ResolvedBase
        from quantize.quality.served_model import load_as_served

        self._model = load_as_served(ResolvedBase("tiny", str(folder), folder, None, "folder"))
        self._active: int | None = None
        for number, adapter in enumerate(adapters):
            tensors = load_file(adapter / "adapter_model.safetensors")
            for name, module in self._model.named_modules():
                key = f"base_model.model.{name}.lora_A.weight"
                if key in tensors:
                    b = tensors[key.replace("lora_A", "lora_B")]
                    module.register_forward_hook(partial(self._add, number, tensors[key], b))

    def _add(self, number: int, a: Any, b: Any, _module: Any, inputs: Any, output: Any) -> Any:
        return output + inputs[0] @ a.t() @ b.t() if self._active == number else output

    def logprobs(self, tokens: list[int], adapter: int | None) -> Any:
        """[tokens, vocabulary], of what comes after each token."""
        import torch

        self._active = adapter
        with torch.no_grad():
            return self._model(torch.tensor([tokens])).logits[0].log_softmax(-1)


def check_answers(
    finished: subprocess.CompletedProcess[str], reference: Reference, num_adapters: int, bound: float
) -> dict[str, int]:
    """Every answer of the engine is the reference's greedy one, up to ties; returns the kernels in use."""
    assert finished.returncode == 0, finished.stderr[-3000:]
    found = json.loads(finished.stdout.splitlines()[-1])
    cases = [(prompt, adapter) for adapter in (None, *range(num_adapters)) for prompt in PROMPTS]
    for (prompt, adapter), answer in zip(cases, found["mixed"], strict=True):
        expected = reference.logprobs([*prompt, *answer["tokens"][:-1]], adapter)[len(prompt) - 1 :]
        for step, (token, logprob) in enumerate(zip(answer["tokens"], answer["logprobs"], strict=True)):
            assert logprob == pytest.approx(float(expected[step, token]), abs=bound)
            assert float(expected[step].max() - expected[step, token]) < bound
    # Alone they say the same; and the adapters change what is said, or all of the above would be empty words.
    alone = [answer["tokens"] for answer in found["alone"]]
    assert alone == [answer["tokens"] for answer in found["mixed"][:: len(PROMPTS)]]
    assert len({tuple(tokens) for tokens in alone}) == 1 + num_adapters
    kernels: dict[str, int] = found["kernels"]
    return kernels


@pytest.mark.parametrize(("isa", "kernels"), [("avx2", "auto"), ("", "vllm")], ids=["avx2", "native"])
def test_every_scheme_answers_as_its_dequantised_weights_beside_adapters(models, isa, kernels):
    adapters = [models / f"adapter{number}" for number in range(NUM_ADAPTERS)]
    base = models / "mixed" / "quantised"
    finished = run_engine(base, adapters, HOTSWAP_CPU_ISA=isa, HOTSWAP_CPU_KERNELS=kernels)
    own_w8a8 = isa == "avx2" or "avx512_vnni" not in read_cpuinfo()[0]
    bound = ROUNDED_OTHERWISE if own_w8a8 else OTHER_SCALE
    served_by = check_answers(finished, Reference(base, adapters), NUM_ADAPTERS, bound)
    weight_only = sum("a16" in scheme for scheme in SCHEMES)
    assert served_by.pop(OWN_WNA16) == 4 * weight_only  # vLLM joins q, k, v and gate, up
    name = f"HotswapW8A8LinearKernel[{ops.available()}]" if own_w8a8 else "CPUInt8ScaledMMLinearKernel"
    assert served_by == {name: 4}


def test_the_gptq_layout_of_8_bits_answers_as_its_dequantised_weights(models):
    adapters = [models / "w8a16" / "adapter"]
    finished = run_engine(models / "w8a16" / "gptq", adapters)
    served_by = check_answers(
        finished, Reference(models / "w8a16" / "quantised", adapters), 1, SUMMED_OTHERWISE
    )
    assert served_by == {OWN_WNA16: 4}


def test_vllm_by_itself_still_dies_of_its_first_request_without_avx512(models):
    base = models / "w4a16" / "quantised"
    finished = run_engine(base, [], HOTSWAP_CPU_PATCHES="", HOTSWAP_CPU_ISA="avx2")
    gone = "vLLM mends this itself now: remove serve/engine/cpu/lowbit_wna16.py and its entry"
    assert finished.returncode != 0, gone
    assert "'_C' object has no attribute 'cpu_gemm_wna16'" in finished.stderr
