"""Settings of `hotswap quantize`."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantize.errors import QuantizeSettingsError
from quantize.settings import load_quantize_settings


@pytest.mark.parametrize("order", ["group", "dynamic"])
def test_an_order_that_vllm_does_not_load_is_refused_with_the_reason(order: str) -> None:
    with pytest.raises(QuantizeSettingsError, match=r"--activation-order: .*g_idx.*static"):
        load_quantize_settings(activation_order=order)


def test_a_recipe_decides_what_a_scheme_would() -> None:
    with pytest.raises(QuantizeSettingsError, match="--recipe decides what --scheme, --group-size would"):
        load_quantize_settings(recipe=Path("r.yaml"), scheme="gptq-w4a16", group_size=64)


def test_files_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTSWAP_QUANTIZE_DATA", "a.jsonl, b.jsonl")
    assert load_quantize_settings().data == (Path("a.jsonl"), Path("b.jsonl"))
    assert load_quantize_settings(data=["c,d.jsonl"]).data == (Path("c,d.jsonl"),)


def test_what_only_measures_the_output_layer_takes_nothing_that_makes_a_base() -> None:
    assert load_quantize_settings(lm_head_bits=8, held_out_rows=4, seed=1).lm_head_bits == 8
    with pytest.raises(QuantizeSettingsError, match="makes nothing, so that --group-size, --scheme decides"):
        load_quantize_settings(lm_head_bits=8, scheme="gptq-w4a16", group_size=64)
