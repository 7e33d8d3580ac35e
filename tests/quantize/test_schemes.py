"""Every scheme, made once on a tiny base and loaded back with stock transformers."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from adapters.tiny import make_tiny_adapter
from adapters.training.base_model import quiet_loading
from bases.lineage import read_lineage
from bases.passport import read_passport
from bases.resolve import resolve_base
from quantize.errors import QuantizeSettingsError
from quantize.quality.served_model import load_as_served
from quantize.schemes.registry import SCHEMES, find_scheme

Quantised = Callable[[str], Path]
# Share of a layer's weight that rounding may move it by, root mean square over root mean square.
MOVED = {4: 0.2, 8: 0.02}


def loaded(folder: Path) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    if hasattr(config, "quantization_config"):
        config.quantization_config["dequantize"] = True
    with quiet_loading(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32)


@pytest.mark.parametrize("name", [name for name in SCHEMES if name != "fp8-dynamic"])
def test_a_scheme_rounds_every_layer_and_nothing_else(
    name: str, tiny_original: Path, tiny_quantised: Quantised
) -> None:
    folder, scheme = tiny_quantised(name), SCHEMES[name]
    tensors = load_file(folder / "model.safetensors")
    layers = {full.rpartition(".")[0] for full in tensors if full.endswith("weight_scale")}
    assert len(layers) == 2 * 7
    assert {tensor.dtype for full, tensor in tensors.items() if full.endswith("norm.weight")} == {
        torch.bfloat16
    }
    assert tensors["model.embed_tokens.weight"].dtype == torch.bfloat16
    assert "lm_head.weight" not in tensors, "tied"
    scales = {tensors[f"{layer}.weight_scale"].dtype for layer in layers}
    assert scales == {torch.bfloat16 if scheme.grouped else torch.float32}
    weights = loaded(folder).state_dict()
    original = load_file(tiny_original / "model.safetensors")
    if read_lineage(folder).steps[-1].moves_scales:  # type: ignore[union-attr]
        return  # the weights are other ones; what the model says is compared below
    for layer in layers:
        before, after = original[f"{layer}.weight"], weights[f"{layer}.weight"]
        moved = (after - before).norm() / before.norm()
        assert 0 < moved < MOVED[scheme.weight_bits], layer


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_a_scheme_is_near_the_original_and_eight_bits_are_nearer(
    name: str, tiny_original: Path, tiny_quantised: Quantised
) -> None:
    folder = tiny_quantised(name)
    step = read_lineage(folder).steps[-1]  # type: ignore[union-attr]
    kl = step.details["quality"]["mean_kl_nats"]["value"]  # type: ignore[index,call-overload]
    assert 0 < kl < {4: 1.5, 8: 0.3}[SCHEMES[name].weight_bits]  # type: ignore[operator]
    assert step.base_rounding is not None
    assert step.base_rounding > 0
    assert step.scheme == name


def test_gptq_is_nearer_to_the_original_than_rounding_to_nearest(tiny_quantised: Quantised) -> None:
    def kl(name: str) -> float:
        details = read_lineage(tiny_quantised(name)).steps[-1].details  # type: ignore[union-attr]
        return float(details["quality"]["mean_kl_nats"]["value"])  # type: ignore[index,call-overload,arg-type]

    assert kl("gptq-w4a16") < kl("rtn-w4a16")


def test_a_quantised_base_stands_in_for_its_original_unless_scales_were_moved(
    tiny_quantised: Quantised,
) -> None:
    stands = {name: bool(read_lineage(tiny_quantised(name)).stands_in_for()) for name in SCHEMES}  # type: ignore[union-attr]
    assert {name for name, does in stands.items() if not does} == {
        "awq-w4a16",
        "int8-w8a8-smooth",
        "int8-w8a8-rtn",
    }


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_config_and_tokenizer_are_the_originals(
    name: str, tiny_original: Path, tiny_quantised: Quantised
) -> None:
    folder = tiny_quantised(name)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (folder / file).read_bytes() == (tiny_original / file).read_bytes()
    config = json.loads((folder / "config.json").read_text())
    quantised = config.pop("quantization_config")
    assert quantised["quant_method"] == "compressed-tensors"
    assert quantised["ignore"] == ["lm_head"]
    assert config.pop("dtype") == "bfloat16"
    before = json.loads((tiny_original / "config.json").read_text())
    before.pop("dtype")
    assert config == before


def test_an_unknown_scheme_is_refused_with_those_there_are() -> None:
    with pytest.raises(QuantizeSettingsError, match=r"no scheme 'gptq-w3'.*\n(.*\n)*  gptq-w4a16: "):
        find_scheme("gptq-w3")


def test_an_adapter_of_the_original_fits_unless_scales_were_moved(
    tiny_original: Path, tiny_quantised: Quantised, quantise_home: Path, tmp_path: Path
) -> None:
    base = resolve_base(str(tiny_original), home=quantise_home)
    facts = read_passport(base, home=quantise_home).facts
    adapter = make_tiny_adapter(tmp_path / "adapter", linear_modules=facts.linear_modules)
    ids = torch.arange(40, 104)[None]

    def says(folder: Path, *, adapted: bool) -> torch.Tensor:
        model = load_as_served(resolve_base(str(folder), home=quantise_home))
        with torch.inference_mode():
            return (PeftModel.from_pretrained(model, adapter) if adapted else model)(ids).logits

    effect = says(tiny_original, adapted=True) - says(tiny_original, adapted=False)
    off = {
        name: float(
            (says(folder, adapted=True) - says(folder, adapted=False) - effect).norm() / effect.norm()
        )
        for name in ("int8-w8a8", "int8-w8a8-smooth")
        for folder in [tiny_quantised(name)]
    }
    assert off["int8-w8a8"] < 0.2
    assert off["int8-w8a8-smooth"] > 0.5
