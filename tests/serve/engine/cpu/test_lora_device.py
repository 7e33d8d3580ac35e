"""Adapters on a layer whose weight is gone: an error in vLLM by itself, a device with the mend."""

from __future__ import annotations

import pytest
import torch
from vllm.lora.layers import base_linear, utils
from vllm.platforms import current_platform

from serve.engine.cpu import lora_device

pytestmark = pytest.mark.skipif(not current_platform.is_cpu(), reason="the mend is for vLLM's CPU platform")


@pytest.fixture
def stock(monkeypatch: pytest.MonkeyPatch):
    """vLLM's own function, and both places as they were after the test."""
    function = getattr(utils._get_lora_device, "__wrapped__", utils._get_lora_device)
    for module in (utils, base_linear):
        monkeypatch.setattr(module, "_get_lora_device", function)
    return function


def released() -> torch.nn.Module:
    layer = torch.nn.Linear(4, 4)
    layer.weight = None
    return layer


def test_vllm_by_itself_still_looks_at_a_weight_that_is_gone(stock):
    gone = "vLLM mends this itself now: remove serve/engine/cpu/lora_device.py and its entry"
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'device'"):
        stock(released())
        pytest.fail(gone)


def test_with_the_mend_it_is_the_cpu_and_other_layers_are_asked_as_before(stock):
    lora_device.install()
    lora_device.install()
    assert base_linear._get_lora_device is utils._get_lora_device
    assert utils._get_lora_device(released()) == torch.device("cpu")
    assert utils._get_lora_device(torch.nn.Linear(4, 4, device="meta")) == torch.device("meta")
    packed = torch.nn.Module()
    packed.weight_packed = torch.nn.Parameter(torch.zeros(2))
    assert utils._get_lora_device(packed) == torch.device("cpu")
    with pytest.raises(ValueError, match="Unsupported base layer"):
        utils._get_lora_device(torch.nn.Module())
