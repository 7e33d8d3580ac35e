from __future__ import annotations

import json
import warnings
from typing import Any, get_args

import pytest

from adapters.check import check_adapter
from adapters.target import TargetBase
from adapters.targets import (
    LATENT_ATTENTION,
    STACKED_EXPERTS,
    engine_modules,
    left_out_modules,
    trainable_modules,
    unserved_modules,
)
from adapters.tiny import make_tiny_adapter
from bases.architecture import ArchitectureFacts, read_architecture
from bases.tiny import Architecture, make_tiny_base

DEEPSEEK = ["deepseek_v2", "deepseek_v3"]
LATENT_LAYERS = ["kv_a_proj_with_mqa", "o_proj", "q_a_proj", "q_b_proj"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    return {
        name: make_tiny_base(folder / name, architecture=name, chat="r1") for name in get_args(Architecture)
    }


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_dense_families_have_an_adapter_on_every_linear_layer(bases, family):
    facts = read_architecture(bases[family])
    assert trainable_modules(facts) == facts.linear_suffixes()
    assert left_out_modules(facts) == {}
    assert unserved_modules(facts.model_type, facts.linear_modules) == frozenset()
    assert engine_modules(facts) is None


@pytest.mark.parametrize("family", DEEPSEEK)
def test_deepseek_has_one_on_its_attention_and_a_reason_for_each_layer_that_has_none(bases, family):
    facts = read_architecture(bases[family])
    assert trainable_modules(facts) == LATENT_LAYERS
    reasons = left_out_modules(facts)
    assert sorted([*reasons, *LATENT_LAYERS]) == facts.linear_suffixes()
    assert "folds" in reasons["kv_b_proj"]
    assert "stacked" in reasons["up_proj"]


@pytest.mark.parametrize("family", DEEPSEEK)
def test_the_engine_takes_adapters_of_other_makers_on_dense_and_shared_layers(bases, family):
    facts = read_architecture(bases[family])
    assert engine_modules(facts) == tuple(sorted([*LATENT_LAYERS, "down_proj", "gate_proj", "up_proj"]))
    assert unserved_modules(facts.model_type, facts.linear_modules) == {
        f"model.layers.{layer}.self_attn.kv_b_proj" for layer in range(2)
    }


@pytest.mark.parametrize("family", DEEPSEEK)
def test_peft_still_reads_the_names_that_are_left_out_as_the_experts(bases, family):
    """If this fails, PEFT has changed: `trainable_modules` may then give more."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    facts = read_architecture(bases[family])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the patterns that PEFT makes itself
        wrapped = get_peft_model(
            AutoModelForCausalLM.from_pretrained(bases[family]),
            LoraConfig(target_modules=facts.linear_suffixes(), r=2),
        )
    assert "model.layers.1.mlp.experts.gate_up_proj" in wrapped.base_model.targeted_parameter_names
    assert not any("shared_experts" in name for name in wrapped.base_model.targeted_module_names)


@pytest.mark.parametrize("family", ["llama", "qwen2", *DEEPSEEK])
def test_peft_adapts_exactly_the_layers_that_were_named(bases, family):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    facts = read_architecture(bases[family])
    names = trainable_modules(facts)
    wrapped = get_peft_model(
        AutoModelForCausalLM.from_pretrained(bases[family]), LoraConfig(target_modules=names, r=2)
    )
    assert set(wrapped.base_model.targeted_module_names) == {
        module for module in facts.linear_modules if module.rpartition(".")[2] in names
    }
    assert wrapped.base_model.targeted_parameter_names == []


def test_the_families_are_those_of_the_installed_libraries():
    from transformers.conversion_mapping import _MODEL_TO_CONVERSION_PATTERN

    stacked = {
        name for name, like in _MODEL_TO_CONVERSION_PATTERN.items() if like in ("mixtral", "qwen2_moe")
    }
    assert stacked == STACKED_EXPERTS


@pytest.mark.vllm
def test_latent_attention_is_what_vllm_says_it_is():
    from types import SimpleNamespace

    import vllm.config  # noqa: F401  (before the next line, or the two import each other)
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    from vllm.transformers_utils.model_arch_config_convertor import ModelArchConfigConvertorBase

    def is_latent(model_type: str) -> bool:
        convertor = object.__new__(ModelArchConfigConvertorBase)
        convertor.hf_text_config = SimpleNamespace(model_type=model_type, kv_lora_rank=512)
        return bool(convertor.is_deepseek_mla())

    assert {name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if is_latent(name)} <= LATENT_ATTENTION
    assert all(map(is_latent, LATENT_ATTENTION))


@pytest.fixture
def target(bases) -> TargetBase:
    facts = read_architecture(bases["deepseek_v3"])
    unserved = unserved_modules(facts.model_type, facts.linear_modules)
    return TargetBase("f", "tiny", facts.linear_modules, unserved_modules=unserved)


def test_an_adapter_on_a_folded_layer_is_refused_by_name(target, tmp_path):
    folder = make_tiny_adapter(
        tmp_path / "a", linear_modules=target.linear_modules, targets=["q_a_proj", "kv_b_proj"]
    )
    problems = check_adapter(folder, target=target).problems
    assert [(problem.code, problem.subject) for problem in problems] == [
        ("module_not_served", f"model.layers.{layer}.self_attn.kv_b_proj") for layer in range(2)
    ]
    assert "without kv_b_proj" in problems[0].message


def test_an_adapter_on_the_other_layers_is_taken(target, tmp_path):
    folder = make_tiny_adapter(
        tmp_path / "a",
        linear_modules=target.linear_modules,
        targets=[*LATENT_LAYERS, "gate_proj", "down_proj"],
    )
    assert check_adapter(folder, target=target).ok


def test_an_adapter_on_the_stacked_experts_is_refused(target, bases, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = get_peft_model(
            AutoModelForCausalLM.from_pretrained(bases["deepseek_v3"]),
            LoraConfig(target_modules="all-linear", r=2),
        )
        wrapped.save_pretrained(tmp_path / "a")
    codes = {problem.code for problem in check_adapter(tmp_path / "a", target=target).problems}
    assert "feature_unsupported" in codes
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert "gate_up_proj" in config["target_parameters"]


def test_every_mixture_keeps_adapters_from_its_experts():
    values: dict[str, Any] = {
        "model_type": "mixtral",
        "num_experts": 4,
        "linear_modules": {"model.layers.0.self_attn.q_proj": (8, 8)},
    }
    facts = ArchitectureFacts.model_construct(**values)
    assert engine_modules(facts) == ("q_proj",)


def test_facts_of_a_base_without_such_layers_are_enough():
    values: dict[str, Any] = {
        "model_type": "gpt2",
        "linear_modules": {"transformer.h.0.attn.c_attn": (8, 24)},
    }
    facts = ArchitectureFacts.model_construct(**values)
    assert trainable_modules(facts) == ["c_attn"]
