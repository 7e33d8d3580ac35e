"""What vLLM is started with, on machines made up for the purpose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serve.engine.vllm.arguments import EngineArguments, EngineWishes, choose_arguments, describe
from serve.engine.vllm.machine import Machine
from serve.engine.vllm.quantisation import Quantisation
from serve.errors import SettingsError
from serve.schemas.sampling import MAX_STOPS
from serve.settings import GIB

OLD_CPU = Machine("cpu", (0, 1), native_bf16=False, avx512=False, available_bytes=16 * GIB, processor="old")
NEW_CPU = replace(
    OLD_CPU, native_bf16=True, avx512=True, cores=(0, 2, 4), available_bytes=256 * GIB, vnni=True
)
GPU = replace(NEW_CPU, device="cuda")
VARIABLES = (
    "VLLM_LOGGING_LEVEL",
    "VLLM_NO_USAGE_STATS",
    "VLLM_MAX_N_SEQUENCES",
    "VLLM_MAX_STOP_STRINGS",
    "VLLM_CPU_OMP_THREADS_BIND",
    "VLLM_MLA_DISABLE",
    "HOTSWAP_CPU_PATCHES",
    "HOTSWAP_CPU_KERNELS",
    "HOTSWAP_CPU_ISA",
)
W4A16 = Quantisation(
    "compressed-tensors", "W4A16 group 64", weight_only=True, rounds_inputs=False, floats=False
)
W8A8 = replace(W4A16, scheme="W8A8 per channel", weight_only=False, rounds_inputs=True)
FP8 = replace(W4A16, scheme="FP8", weight_only=False, floats=True)


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def wishes(**given: Any) -> EngineWishes:
    plain: dict[str, Any] = {
        "model_path": "/bases/smol",
        "model_name": "smol",
        "context_tokens": 8192,
        "kv_values_per_token": 1000,
        "dtype": "auto",
        "max_model_len": None,
        "kv_cache_gib": None,
        "max_num_seqs": None,
        "max_loras": 8,
        "max_cpu_loras": 64,
        "max_lora_rank": 64,
        "cpu_patches": "auto",
        "reasoning_parser": None,
        "tool_parser": None,
        "trust_remote_code": False,
        "structured_outputs": True,
        "extra": (),
    }
    return EngineWishes(**{**plain, **given})


def values(chosen: EngineArguments) -> dict[str, str]:
    """Arguments as name -> value; a bare flag has the empty one. Each may come once."""
    pairs = [text.removeprefix("--").partition("=") for text in chosen.arguments]
    names = [name for name, _, _ in pairs]
    assert len(set(names)) == len(names)
    return {name: value for name, _, value in pairs}


def choose(machine: Machine = OLD_CPU, **given: Any) -> dict[str, str]:
    return values(choose_arguments(machine, wishes(**given)))


def test_a_processor_without_bf16_gets_float32_and_one_with_it_bfloat16() -> None:
    assert choose(OLD_CPU)["dtype"] == "float32"
    assert choose(NEW_CPU)["dtype"] == "bfloat16"
    assert choose(OLD_CPU, dtype="float16")["dtype"] == "float16"


def test_a_cpu_uses_all_its_cores_and_a_quarter_of_its_memory() -> None:
    chosen = choose_arguments(NEW_CPU, wishes())
    assert chosen.environment["VLLM_CPU_OMP_THREADS_BIND"] == "0,2,4"
    assert chosen.environment["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "128"
    assert chosen.environment["LRU_CACHE_CAPACITY"] == "64"
    assert values(chosen)["kv-cache-memory-bytes"] == str(8 * GIB)
    assert choose(OLD_CPU)["kv-cache-memory-bytes"] == str(4 * GIB)
    assert choose(OLD_CPU, kv_cache_gib=0.5)["kv-cache-memory-bytes"] == str(GIB // 2)
    assert choose(OLD_CPU)["max-num-seqs"] == "64"
    assert choose(OLD_CPU, max_num_seqs=7)["max-num-seqs"] == "7"
    assert "enforce-eager" in choose(OLD_CPU)


def test_on_a_gpu_vllms_own_choices_stand() -> None:
    chosen = choose_arguments(GPU, wishes())
    assert set(values(chosen)) == {
        "model",
        "served-model-name",
        "enable-lora",
        "max-loras",
        "max-cpu-loras",
        "max-lora-rank",
        "scheduling-policy",
        "structured-outputs-config.backend",
    }
    assert not {
        "VLLM_CPU_OMP_THREADS_BIND",
        "HOTSWAP_CPU_PATCHES",
        "LRU_CACHE_CAPACITY",
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY",
    } & set(chosen.environment)
    asked = choose(GPU, dtype="float16", max_model_len=99, max_num_seqs=5)
    assert (asked["dtype"], asked["max-model-len"], asked["max-num-seqs"]) == ("float16", "99", "5")


def test_vllms_handlers_take_as_many_stop_texts_as_the_gateway() -> None:
    for machine in (OLD_CPU, GPU):
        chosen = choose_arguments(machine, wishes())
        assert chosen.environment["VLLM_MAX_STOP_STRINGS"] == str(MAX_STOPS)


def test_probes_go_ahead_of_what_waits_unless_another_policy_is_asked_for() -> None:
    for machine in (OLD_CPU, GPU):
        assert choose(machine)["scheduling-policy"] == "priority"
        assert choose(machine, extra=("scheduling_policy=fcfs",))["scheduling-policy"] == "fcfs"


def test_the_context_shrinks_to_what_the_cache_holds() -> None:
    assert "max-model-len" not in choose(OLD_CPU, context_tokens=8192)
    # 1000 numbers of 4 bytes a token: 0.01 GiB holds 2684 tokens, 20 blocks of 128, of which vLLM keeps one empty.
    assert choose(OLD_CPU, kv_cache_gib=0.01)["max-model-len"] == "2432"
    assert choose(NEW_CPU, kv_cache_gib=0.01)["max-model-len"] == "5120"
    assert choose(OLD_CPU, kv_cache_gib=0.01, max_model_len=8192)["max-model-len"] == "8192"


@pytest.mark.parametrize("machine", [OLD_CPU, GPU])
def test_what_was_asked_for_is_passed_on(machine: Machine) -> None:
    given = choose(
        machine,
        reasoning_parser="deepseek_r1",
        tool_parser="hermes",
        trust_remote_code=True,
        structured_outputs=False,
        extra=("tensor-parallel-size=2", "--enable_log_stats", "seed = 7"),
    )
    assert given["reasoning-parser"] == "deepseek_r1"
    assert given["tool-call-parser"] == "hermes"
    assert given["trust-remote-code"] == given["enable-auto-tool-choice"] == ""
    assert "structured-outputs-config.backend" not in given
    assert (given["tensor-parallel-size"], given["enable-log-stats"], given["seed"]) == ("2", "", "7")


@pytest.mark.parametrize(
    "argument",
    [
        "model=x",
        "--dtype=bfloat16",
        "max_loras=3",
        "enable-lora",
        "host=0.0.0.0",
        "api-key=x",
        "lora-modules=a=b",
        "kv_cache_memory_bytes=1",
        "trust-remote-code",
        "enable-prompt-embeds",
        " max-model-len = 5",
    ],
)
def test_what_another_setting_owns_is_refused_with_its_name(argument: str) -> None:
    with pytest.raises(SettingsError, match="use "):
        choose(extra=(argument,))


@pytest.mark.parametrize("argument", ["=2", "--=2", "  "])
def test_an_argument_without_a_name_is_refused(argument: str) -> None:
    with pytest.raises(SettingsError, match="has no name"):
        choose(extra=(argument,))


def test_the_environment_beats_what_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0")
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    chosen = choose_arguments(OLD_CPU, wishes())
    assert not {"VLLM_CPU_OMP_THREADS_BIND", "VLLM_LOGGING_LEVEL"} & set(chosen.environment)
    assert chosen.notes["VLLM_CPU_OMP_THREADS_BIND"] == "0 (from the environment)"


@pytest.mark.parametrize(
    ("setting", "variable"),
    [("auto", "all"), ("none", ""), ("lora-isolation", "lora-isolation")],
)
@pytest.mark.parametrize("inherited", [None, "auto", "none"])
def test_the_setting_decides_on_patches_whatever_was_inherited(
    monkeypatch: pytest.MonkeyPatch, setting: str, variable: str, inherited: str | None
) -> None:
    if inherited is not None:
        monkeypatch.setenv("HOTSWAP_CPU_PATCHES", inherited)
    chosen = choose_arguments(OLD_CPU, wishes(cpu_patches=setting))
    assert chosen.environment["HOTSWAP_CPU_PATCHES"] == variable


def test_on_a_cpu_alone_the_engine_makes_way_for_the_gateway():
    variable = "HOTSWAP_ENGINE_NICENESS"
    assert choose_arguments(OLD_CPU, wishes(niceness=3)).environment[variable] == "3"
    assert variable not in choose_arguments(GPU, wishes(niceness=3)).environment


@pytest.mark.parametrize("machine", [OLD_CPU, NEW_CPU, GPU])
def test_every_choice_has_a_reason(machine: Machine) -> None:
    chosen = choose_arguments(machine, wishes(extra=("seed=1",)))
    assert set(values(chosen)) <= set(chosen.notes)
    for line in describe(chosen.notes):
        name, _, value = line.partition(" = ")
        assert name
        assert value.endswith(")")
        assert "(" in value


def test_choosing_changes_nothing_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    before = dict(os.environ)
    choose_arguments(OLD_CPU, wishes())
    assert dict(os.environ) == before


def test_the_bases_path_and_public_name_are_given() -> None:
    given = choose()
    assert (given["model"], given["served-model-name"]) == (str(Path("/bases/smol")), "smol")


@pytest.mark.parametrize("text", ["api-ke=x", "no-enable-lora", "enable-lo", "trust-remote-c"])
def test_the_beginning_or_the_negation_of_an_owned_argument_is_refused_too(text):
    with pytest.raises(SettingsError, match="cannot be passed to the engine"):
        choose_arguments(GPU, wishes(extra=(text,)))


@pytest.mark.parametrize("family", ["deepseek_v2", "deepseek_v3"])
def test_latent_attention_is_run_over_whole_keys_on_a_cpu(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = choose_arguments(OLD_CPU, wishes(model_type=family))
    assert chosen.environment["VLLM_MLA_DISABLE"] == "1"
    assert "VLLM_MLA_DISABLE" not in choose_arguments(GPU, wishes(model_type=family)).environment
    assert "VLLM_MLA_DISABLE" not in choose_arguments(OLD_CPU, wishes(model_type="llama")).environment
    monkeypatch.setenv("VLLM_MLA_DISABLE", "0")
    assert "VLLM_MLA_DISABLE" not in choose_arguments(OLD_CPU, wishes(model_type=family)).environment


@pytest.mark.parametrize("machine", [OLD_CPU, GPU])
def test_layers_that_take_adapters_are_named_one_by_one(machine: Machine) -> None:
    chosen = choose_arguments(machine, wishes(lora_targets=("o_proj", "q_proj")))
    place = chosen.arguments.index("--lora-target-modules")
    assert chosen.arguments[place + 1 : place + 3] == ["o_proj", "q_proj"]
    assert chosen.arguments[place + 3].startswith("--")
    assert "no adapter reaches the experts" in chosen.notes["lora-target-modules"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"model_type": "deepseek_v32"}, "sparse attention needs a GPU"),
        ({"head_size": 24}, "24 wide, and vLLM's attention on a CPU has 32, 64"),
    ],
)
def test_a_base_without_attention_on_a_cpu_is_refused_before_the_start(
    given: dict[str, Any], reason: str
) -> None:
    with pytest.raises(SettingsError, match=reason):
        choose_arguments(OLD_CPU, wishes(**given))
    assert choose_arguments(GPU, wishes(**given)).arguments


@pytest.mark.parametrize("patches", ["none", "lora-grouped,uniproc"])
def test_experts_on_a_cpu_need_their_mend(patches: str) -> None:
    with pytest.raises(SettingsError, match="would end with its first request; add moe-experts"):
        choose_arguments(OLD_CPU, wishes(lora_targets=("q_proj",), cpu_patches=patches))
    chosen = choose_arguments(OLD_CPU, wishes(lora_targets=("q_proj",), cpu_patches="moe-experts,uniproc"))
    assert "moe-experts" in chosen.environment["HOTSWAP_CPU_PATCHES"]
    assert choose_arguments(OLD_CPU, wishes(cpu_patches="none")).environment["HOTSWAP_CPU_PATCHES"] == ""


def test_a_quantised_base_is_named_and_its_kernels_are_the_settings_to_choose() -> None:
    chosen = choose_arguments(OLD_CPU, wishes(quantisation=W4A16, cpu_kernels="vllm"))
    assert chosen.notes["quantisation"] == "W4A16 group 64 (weights of the base)"
    assert chosen.environment["HOTSWAP_CPU_KERNELS"] == "vllm"
    assert values(chosen)["dtype"] == "float32"
    assert choose(NEW_CPU, quantisation=W4A16)["dtype"] == "bfloat16"


def test_weights_of_few_bits_are_served_in_float32_where_our_kernels_were_compiled() -> None:
    compiled = replace(NEW_CPU, low_bit_compiled=True)
    assert choose(compiled, quantisation=W4A16)["dtype"] == "float32"
    assert choose(compiled, quantisation=W4A16, dtype="bfloat16")["dtype"] == "bfloat16"
    assert choose(compiled, quantisation=W4A16, cpu_kernels="vllm")["dtype"] == "bfloat16"
    assert choose(compiled, quantisation=W4A16, cpu_patches="uniproc")["dtype"] == "bfloat16"
    for other in (None, W8A8):
        assert choose(compiled, quantisation=other)["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("quantisation", "reason"),
    [
        (FP8, "cannot be served on this machine: FP8 needs a GPU"),
        (replace(W4A16, order="group"), "actorder=group.*static activation order"),
    ],
)
def test_a_scheme_that_vllm_cannot_serve_is_refused_before_the_start(
    quantisation: Quantisation, reason: str
) -> None:
    with pytest.raises(SettingsError, match=reason):
        choose_arguments(NEW_CPU, wishes(quantisation=quantisation))
    if quantisation.order is None:
        assert choose_arguments(GPU, wishes(quantisation=quantisation)).arguments


@pytest.mark.parametrize(
    ("machine", "quantisation", "dtype", "needed"),
    [
        (OLD_CPU, W4A16, "auto", "lowbit-wna16"),
        (OLD_CPU, W4A16, "bfloat16", "lowbit-wna16"),
        (NEW_CPU, W4A16, "float32", "lowbit-wna16"),
        (NEW_CPU, W4A16, "auto", None),
        (NEW_CPU, W8A8, "auto", "lora-device"),
        (OLD_CPU, W8A8, "auto", "lowbit-w8a8"),
        (OLD_CPU, None, "auto", None),
    ],
)
def test_without_the_mend_that_its_base_needs_the_engine_is_not_started(
    machine: Machine, quantisation: Quantisation | None, dtype: str, needed: str | None
) -> None:
    plain = wishes(quantisation=quantisation, dtype=dtype, cpu_patches="uniproc")
    if needed is None:
        choose_arguments(machine, plain)
        return
    with pytest.raises(SettingsError, match=f"is quantised .*; add {needed}"):
        choose_arguments(machine, plain)
    choose_arguments(machine, replace(plain, cpu_patches=f"uniproc,{needed}"))


def test_fixed_scales_of_inputs_are_refused_where_their_sums_would_be_wrong() -> None:
    fixed = replace(W8A8, fixed_inputs=True)
    with pytest.raises(SettingsError, match="computes wrongly on a processor without VNNI"):
        choose_arguments(OLD_CPU, wishes(quantisation=fixed))
    for machine in (NEW_CPU, GPU):
        assert choose_arguments(machine, wishes(quantisation=fixed)).arguments


def test_a_simulated_processor_is_simulated_for_torch_and_onednn_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "ATEN_CPU_CAPABILITY" not in choose_arguments(OLD_CPU, wishes()).environment
    monkeypatch.setenv("HOTSWAP_CPU_ISA", "avx2")
    chosen = choose_arguments(OLD_CPU, wishes())
    assert chosen.environment["ATEN_CPU_CAPABILITY"] == "avx2"
    assert chosen.environment["ONEDNN_MAX_CPU_ISA"] == "AVX2"


def test_an_output_layer_in_8_bits_is_for_cpus_and_off_by_itself() -> None:
    plain = choose_arguments(OLD_CPU, wishes())
    assert "HOTSWAP_LM_HEAD_BITS" not in plain.environment
    assert "lm-head-bits" not in plain.notes
    asked = choose_arguments(OLD_CPU, wishes(lm_head_bits=8))
    assert asked.environment["HOTSWAP_LM_HEAD_BITS"] == "8"
    assert asked.notes["lm-head-bits"] == "8 (asked for; measured on this base)"
    with pytest.raises(SettingsError, match="--lm-head-bits 8 is for CPUs, and this machine serves on"):
        choose_arguments(GPU, wishes(lm_head_bits=8))
