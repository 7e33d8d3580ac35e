"""Rotary embedding of queries with several heads: vLLM's CPU kernel against its own PyTorch code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from vllm.platforms import current_platform

from serve.engine.cpu import rotary

pytestmark = [
    pytest.mark.skipif(not current_platform.is_cpu(), reason="the mends are for vLLM's CPU platform"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
]

TOKENS, HEADS, SIZE = 7, 4, 64


@pytest.fixture(autouse=True)
def as_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding

    monkeypatch.setattr(RotaryEmbedding, "forward_cpu", RotaryEmbedding.forward_cpu)


@pytest.fixture(params=[True, False], ids=["neox", "gptj"])
def embedding(request: pytest.FixtureRequest) -> Any:
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor.layers.rotary_embedding import get_rope

    parameters = {"rope_theta": 10000.0, "rope_type": "default"}
    with set_current_vllm_config(VllmConfig()):
        return get_rope(SIZE, max_position=32, rope_parameters=parameters, is_neox_style=request.param)


def error(embedding: Any, *, flat: bool) -> float:
    """Largest difference between the CPU path and PyTorch's."""
    torch.manual_seed(0)
    query, key, positions = (
        torch.randn(TOKENS, HEADS, SIZE),
        torch.randn(TOKENS, 1, SIZE),
        torch.arange(TOKENS),
    )
    expected = embedding.forward_native(positions, query.clone(), key.clone())
    if flat:
        found = embedding.forward_cpu(positions, query.clone().flatten(1), key.clone().flatten(1))
    else:
        found = embedding.forward_cpu(positions, query.clone(), key.clone())
    pairs = zip(expected, found, strict=True)
    return max(float((one - other.view_as(one)).abs().max()) for one, other in pairs)


def test_vllm_by_itself_rotates_three_dimensions_wrongly(embedding):
    assert error(embedding, flat=False) > 0.1, "vLLM mends this itself now: remove rotary.py"


def test_with_the_mend_both_shapes_are_right(embedding):
    rotary.install()
    rotary.install()
    assert error(embedding, flat=False) < 1e-5
    assert error(embedding, flat=True) < 1e-5
