"""Experts on a CPU while adapters are enabled: which implementation vLLM takes."""

from __future__ import annotations

import pytest
import torch
from vllm.platforms import current_platform

from serve.engine.cpu import moe_experts

pytestmark = [
    pytest.mark.skipif(not current_platform.is_cpu(), reason="the mends are for vLLM's CPU platform"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def as_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.model_executor.layers.fused_moe.config import FusedMoEConfig

    monkeypatch.setattr(FusedMoEConfig, "__init__", FusedMoEConfig.__init__)


def choose(*, lora: bool) -> str:
    """The experts that vLLM takes."""
    from vllm.model_executor.layers.fused_moe.activation import MoEActivation
    from vllm.model_executor.layers.fused_moe.config import (
        FusedMoEConfig,
        FusedMoEParallelConfig,
        RoutingMethodType,
    )
    from vllm.model_executor.layers.fused_moe.oracle.unquantized import select_unquantized_moe_backend

    config = FusedMoEConfig(
        num_experts=8,
        experts_per_token=2,
        hidden_dim=128,
        intermediate_size=64,
        num_local_experts=8,
        num_logical_experts=8,
        moe_parallel_config=FusedMoEParallelConfig.make_no_parallel(),
        in_dtype=torch.float32,
        activation=MoEActivation.SILU,
        device=torch.device("cpu"),
        routing_method=RoutingMethodType.Renormalize,
        is_lora_enabled=lora,
    )
    return str(select_unquantized_moe_backend(config)[0].name)


def test_vllm_by_itself_takes_experts_that_the_cpu_has_not():
    assert choose(lora=False) == "CPU"
    assert choose(lora=True) == "TRITON", "vLLM mends this itself now: remove moe_experts.py"


def test_with_the_mend_it_takes_those_that_it_has():
    moe_experts.install()
    moe_experts.install()
    assert choose(lora=True) == "CPU"
