from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.artefact import WEIGHTS_NAME
from adapters.check import check_adapter
from adapters.config import CONFIG_NAME
from adapters.errors import AdapterCheckError
from adapters.manifest import build_manifest, write_manifest
from adapters.probe import Probe, ProbeCase, write_probe
from adapters.report import CheckReport
from adapters.target import RoundedBase, TargetBase
from adapters.tiny import make_tiny_adapter
from tests.adapters.conftest import LINEAR_MODULES, load_tensors, pack, read_weights, write_tensors

Q0 = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture
def check(adapter: Path, target: TargetBase):
    def run(**changes) -> CheckReport:
        arguments: dict[str, Any] = {"target": target, "max_lora_rank": 16} | changes
        return check_adapter(adapter, **arguments)

    return run


def codes(report: CheckReport) -> set[str]:
    return {problem.code for problem in report.problems}


def only(report: CheckReport, code: str) -> str:
    """The message of the only kind of problem there is."""
    assert codes(report) == {code}, report.render()
    return report.problems[0].message


def edit_tensors(adapter: Path, **changes) -> None:
    tensors = load_tensors(adapter)
    for name, value in changes.items():
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    write_tensors(adapter / WEIGHTS_NAME, tensors)


def test_a_good_adapter_passes_with_its_facts(check):
    report = check()
    assert report.ok, report.render()
    assert report.warnings == ()
    facts = report.facts
    assert (facts.rank, facts.alpha, facts.rslora) == (4, 8.0, False)
    assert facts.target_modules == ("q_proj", "v_proj")
    assert (facts.num_modules, facts.num_tensors, facts.dtype) == (4, 8, "F32")
    assert facts.num_parameters == 2 * (4 * 32 + 32 * 4 + 4 * 32 + 16 * 4)
    assert facts.digest is not None
    assert len(facts.digest) == 64
    report.raise_for_problems()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_passes(tmp_path, target, dtype):
    folder = make_tiny_adapter(tmp_path / "half", linear_modules=LINEAR_MODULES, dtype=dtype)
    assert check_adapter(folder, target=target).ok


def test_the_report_names_every_problem_at_once_with_its_numbers(adapter, check, edit_config):
    edit_config(r=128, use_dora=True, bias="all", modules_to_save=["lm_head"])
    edit_tensors(adapter, **{f"{Q0}.lora_B.weight": None})
    report = check()
    assert codes(report) == {
        "rank_too_high",
        "dora",
        "bias",
        "modules_to_save",
        "a_without_b",
        "rank_mismatch",
    }
    text = report.render()
    assert "128" in text
    assert "cannot be loaded" in text
    with pytest.raises(AdapterCheckError, match="rank_too_high") as caught:
        report.raise_for_problems()
    assert caught.value.report is report
    json.dumps(report.to_dict())


def test_an_empty_folder_lacks_both_files(tmp_path):
    assert codes(check_adapter(tmp_path, target=None)) == {"config_missing", "weights_missing"}


def test_a_missing_folder_and_a_file_are_not_folders(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "none", tmp_path / "file", Path("bad\0path")):
        only(check_adapter(path, target=None), "not_a_folder")


def test_pickled_weights_alone_are_refused(adapter, check):
    (adapter / WEIGHTS_NAME).rename(adapter / "adapter_model.bin")
    assert "safe_serialization" in only(check(), "weights_pickle_only")


def test_split_weights_are_refused(adapter, check):
    (adapter / WEIGHTS_NAME).rename(adapter / "adapter_model-00001-of-00002.safetensors")
    only(check(), "weights_sharded")


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_named_safetensors_is_refused_and_never_run(adapter, check, tmp_path):
    canary = tmp_path / "canary"
    payload = pickle.dumps(Canary(canary))
    pickle.loads(payload)
    assert canary.exists(), "the payload works, so the rest of this test means something"
    canary.unlink()
    (adapter / WEIGHTS_NAME).write_bytes(payload)
    (adapter / "training_args.bin").write_bytes(payload)
    (adapter / "adapter_model.bin").write_bytes(payload)
    (adapter / "setup.py").write_text(f"open({str(canary)!r}, 'w')")
    report = check()
    only(report, "safetensors_invalid")
    assert report.facts.ignored_files == ("adapter_model.bin", "setup.py", "training_args.bin")
    assert not canary.exists()


@pytest.mark.parametrize("name", [CONFIG_NAME, WEIGHTS_NAME])
def test_links_are_refused(adapter, check, tmp_path, name):
    outside = (adapter / name).rename(tmp_path / "outside")
    (adapter / name).symlink_to(outside)
    assert "symbolic link" in only(check(), "unsafe_file")
    (adapter / name).unlink()
    (adapter / name).hardlink_to(outside)
    assert "2 names" in only(check(), "unsafe_file")


def test_a_named_pipe_is_refused_without_waiting_for_a_writer(adapter, check):
    (adapter / WEIGHTS_NAME).unlink()
    os.mkfifo(adapter / WEIGHTS_NAME)
    only(check(), "unsafe_file")


def test_a_folder_in_place_of_a_file_is_refused(adapter, check):
    (adapter / CONFIG_NAME).unlink()
    (adapter / CONFIG_NAME).mkdir()
    only(check(), "unsafe_file")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"r": NaN}', '{"r":8,"r":8}', "[" * 100_000, '{"peft_type":"LORA"}', " " * 2_000_000],
)
def test_an_unreadable_configuration_is_refused(adapter, check, text):
    (adapter / CONFIG_NAME).write_text(text)
    assert codes(check()) == {"config_invalid"}


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"peft_type": "ADALORA"}, "peft_type_unsupported", "ADALORA"),
        ({"peft_type": None}, "peft_type_unsupported", "None"),
        ({"task_type": "SEQ_CLS"}, "task_type_unsupported", "SEQ_CLS"),
        ({"auto_map": {"AutoModel": "evil.Model"}}, "auto_map", "auto_map"),
        ({"target_modules": 3}, "config_invalid", "3"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save", "lm_head"),
        ({"modules_to_save": ["score"]}, "modules_to_save", "score"),
        ({"bias": "lora_only"}, "bias", "lora_only"),
        ({"lora_bias": True}, "bias", "lora_bias"),
        ({"use_dora": True}, "dora", "use_dora"),
        ({"trainable_token_indices": [1, 2]}, "trainable_tokens", "trainable_token_indices"),
        ({"alora_invocation_tokens": [1]}, "feature_unsupported", "activated"),
        ({"layer_replication": [[0, 1]]}, "feature_unsupported", "layer_replication"),
        ({"use_bdlora": {"nblocks": 2}}, "feature_unsupported", "use_bdlora"),
        ({"use_qalora": True}, "feature_unsupported", "use_qalora"),
        ({"arrow_config": {"top_k": 1}}, "feature_unsupported", "Arrow"),
        ({"kasa_config": {"beta": 1}}, "feature_unsupported", "KaSA"),
        ({"monteclora_config": {"n": 1}}, "feature_unsupported", "MonteCLoRA"),
        ({"target_parameters": ["experts.gate_up_proj"]}, "feature_unsupported", "target_parameters"),
        ({"init_lora_weights": "pissa"}, "init_unsupported", "pissa"),
        ({"init_lora_weights": "olora"}, "init_unsupported", "olora"),
        ({"r": 0}, "rank_invalid", "0"),
        ({"r": True}, "rank_invalid", "True"),
        ({"r": 4.0}, "rank_invalid", "4.0"),
        ({"r": "4"}, "rank_invalid", "'4'"),
        ({"lora_alpha": None}, "alpha_invalid", "None"),
        ({"lora_alpha": "8"}, "alpha_invalid", "'8'"),
        ({"use_rslora": "yes"}, "config_invalid", "yes"),
        ({"rank_pattern": {"q_proj": 0}}, "rank_invalid", "q_proj"),
        ({"rank_pattern": [4]}, "config_invalid", "[4]"),
        ({"alpha_pattern": {"q_proj": None}}, "alpha_invalid", "q_proj"),
        ({"rank_pattern": {"(a+)+$": 4}}, "pattern_unsupported", "(a+)+$"),
        ({"alpha_pattern": {"layers.[0-9]+.q_proj": 4}}, "pattern_unsupported", "regular expression"),
    ],
)
def test_a_configuration_the_engine_cannot_serve_is_refused(check, edit_config, changes, code, words):
    edit_config(**changes)
    assert words in only(check(), code)


def test_initialisations_that_leave_the_base_alone_pass(check, edit_config):
    for init in (True, False, "gaussian", "eva", "orthogonal"):
        edit_config(init_lora_weights=init)
        assert check().ok


def test_the_rank_is_held_against_the_server_with_the_way_out(check, edit_config, adapter, tmp_path):
    folder = make_tiny_adapter(tmp_path / "wide", linear_modules=LINEAR_MODULES, rank=33)
    message = only(check_adapter(folder, target=None, max_lora_rank=16), "rank_too_high")
    assert "33" in message
    assert "max_lora_rank 64" in message
    assert check_adapter(folder, target=None, max_lora_rank=64).ok
    assert check_adapter(folder, target=None).ok
    edit_config(r=513)
    assert "smaller rank" in check(max_lora_rank=None).problems[0].message


def test_a_rank_pattern_counts_towards_the_highest_rank(check, edit_config):
    edit_config(rank_pattern={"unused_proj": 32})
    assert "32" in only(check(), "rank_too_high")


def test_ranks_by_pattern_are_held_against_the_tensors(adapter, check, edit_config):
    tensors = load_tensors(adapter)
    tensors[f"{Q0}.lora_A.weight"] = np.ones((6, 32), np.float32)
    tensors[f"{Q0}.lora_B.weight"] = np.ones((32, 6), np.float32)
    write_tensors(adapter / WEIGHTS_NAME, tensors)
    message = only(check(), "rank_mismatch")
    assert "rank 6" in message
    assert "gives it 4" in message
    edit_config(
        rank_pattern={"^model.layers.0.self_attn.q_proj": 6}, alpha_pattern={"layers.0.self_attn.q_proj": 3}
    )
    report = check()
    assert report.ok, report.render()
    assert report.facts.rank == 6


def test_a_module_the_base_lacks_is_named_with_its_nearest(adapter, check, edit_config):
    tensors = load_tensors(adapter)
    for factor in "AB":
        old = f"{Q0}.lora_{factor}.weight"
        tensors[old.replace("q_proj", "q_projj")] = tensors.pop(old)
    write_tensors(adapter / WEIGHTS_NAME, tensors)
    edit_config(target_modules=["q_proj", "v_proj", "q_projj"])
    message = only(check(), "target_unknown")
    assert "model.layers.0.self_attn.q_projj" in message
    assert "Nearest: model.layers.0.self_attn.q_proj" in message


def test_wrong_sizes_are_given_with_those_of_the_base(adapter, check):
    edit_tensors(adapter, **{f"{Q0}.lora_A.weight": np.ones((4, 31), np.float32)})
    message = only(check(), "shape_mismatch")
    assert "31 to 32" in message
    assert "32 to 32" in message


def test_a_vector_in_place_of_a_matrix_is_refused(adapter, check):
    edit_tensors(adapter, **{f"{Q0}.lora_A.weight": np.ones(128, np.float32)})
    assert "[128]" in only(check(), "shape_mismatch")


@pytest.mark.parametrize("missing", ["A", "B"])
def test_half_a_pair_is_refused(adapter, check, missing):
    edit_tensors(adapter, **{f"{Q0}.lora_{missing}.weight": None})
    assert f"no lora_{missing}" in only(check(), "a_without_b")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("model.layers.0.self_attn.q_proj.lora_A.weight", "tensor_unknown"),
        (f"{Q0}.lora_A.default.weight", "tensor_unknown"),
        (f"{Q0}.lora_C.weight", "tensor_unknown"),
        (f"{Q0}.lora_B.bias", "bias"),
        (f"{Q0}.lora_magnitude_vector.weight", "dora"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", "embedding_layer"),
        ("base_model.model.lm_head.weight", "embedding_layer"),
        ("base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta", "embedding_layer"),
        ("base_model.model.score.modules_to_save.weight", "modules_to_save"),
        ("base_model.model.x.token_adapter.trainable_tokens_delta", "trainable_tokens"),
    ],
)
def test_a_tensor_the_engine_would_choke_on_is_refused(adapter, check, name, code):
    edit_tensors(adapter, **{name: np.ones((4, 4), np.float32)})
    only(check(), code)


def with_lm_head(adapter: Path, edit_config) -> None:
    edit_tensors(
        adapter,
        **{
            "base_model.model.lm_head.lora_A.weight": np.ones((4, 32), np.float32),
            "base_model.model.lm_head.lora_B.weight": np.ones((99, 4), np.float32),
        },
    )
    edit_config(target_modules=["q_proj", "v_proj", "lm_head"])


def test_an_output_layer_tied_to_the_input_cannot_be_adapted(adapter, check, edit_config, target):
    with_lm_head(adapter, edit_config)
    only(check(), "embedding_layer")
    untied = TargetBase("f", "tiny-llama", {**LINEAR_MODULES, "lm_head": (32, 99)}, "x/Tiny-Llama")
    assert check(target=untied).ok


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_values_that_are_not_finite_are_counted(adapter, check, value, dtype):
    tensors = {name: tensor.astype(dtype) for name, tensor in load_tensors(adapter).items()}
    tensors[f"{Q0}.lora_B.weight"][3, 2] = value
    tensors[f"{Q0}.lora_B.weight"][9, 1] = value
    write_tensors(adapter / WEIGHTS_NAME, tensors)
    message = only(check(), "non_finite")
    assert "2 values" in message
    assert "layers.0.self_attn.q_proj.lora_B" in message


def test_values_that_are_not_finite_are_found_in_bfloat16_and_beyond_the_first_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr("adapters.artefact.CHUNK_BYTES", 64)
    folder = make_tiny_adapter(tmp_path / "half", linear_modules=LINEAR_MODULES, dtype="bfloat16")
    assert check_adapter(folder, target=None).ok
    header, data = read_weights(folder)
    spoiled = bytearray(data)
    end = header[f"{Q0}.lora_B.weight"]["data_offsets"][1]
    spoiled[end - 2 : end] = b"\x80\x7f"  # infinity
    (folder / WEIGHTS_NAME).write_bytes(pack(header, bytes(spoiled)))
    assert "1 value " in only(check_adapter(folder, target=None), "non_finite")


@pytest.mark.parametrize("factor", ["A", "B"])
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_an_adapter_that_changes_nothing_is_refused(adapter, check, factor, zero):
    tensors = load_tensors(adapter)
    for name in tensors:
        if f"lora_{factor}" in name:
            tensors[name][:] = zero
    write_tensors(adapter / WEIGHTS_NAME, tensors)
    only(check(), "zero_effect")


def test_an_alpha_of_zero_changes_nothing(check, edit_config):
    edit_config(lora_alpha=0)
    only(check(), "zero_effect")


def test_one_module_that_changes_something_is_enough(adapter, check):
    tensors = load_tensors(adapter)
    for name in tensors:
        if "lora_B" in name and not name.startswith(Q0):
            tensors[name][:] = 0
    write_tensors(adapter / WEIGHTS_NAME, tensors)
    assert check().ok


def test_weights_outside_the_targets_are_refused(check, edit_config):
    edit_config(target_modules=["v_proj"])
    assert "q_proj" in only(check(), "target_mismatch")
    edit_config(target_modules=["self_attn.q_proj", "model.layers.0.self_attn.v_proj", "1.self_attn.v_proj"])
    assert check().ok
    edit_config(target_modules="all-linear")
    assert check().ok


def test_a_target_without_weights_is_a_warning(check, edit_config):
    edit_config(target_modules=["q_proj", "v_proj", "c_attn"])
    report = check()
    assert report.ok
    assert [warning.code for warning in report.warnings] == ["target_without_weights"]
    assert "c_attn" in report.warnings[0].message


def test_too_large_a_file_is_not_read(adapter, check):
    report = check(max_bytes=100)
    assert "at most 100" in only(report, "too_large")
    assert report.facts.digest is None


def test_another_dtype_is_refused(adapter, check):
    tensors = {name: tensor.astype(np.float64) for name, tensor in load_tensors(adapter).items()}
    write_tensors(adapter / WEIGHTS_NAME, tensors)
    assert "F64" in only(check(), "dtype_unsupported")


def test_truncated_weights_are_refused(adapter, check):
    raw = (adapter / WEIGHTS_NAME).read_bytes()
    (adapter / WEIGHTS_NAME).write_bytes(raw[:-1])
    assert "cut off" in only(check(), "safetensors_invalid")


def test_another_name_for_the_base_is_only_a_warning(check, edit_config):
    for fitting in ("other/tiny-llama", "/home/me/Tiny-Llama/", None, ""):
        edit_config(base_model_name_or_path=fitting)
        assert check().warnings == ()
    edit_config(base_model_name_or_path="someone/Big-Llama")
    report = check()
    assert report.ok
    assert [warning.code for warning in report.warnings] == ["base_name_differs"]


def add_manifest(adapter: Path, fingerprint: str) -> None:
    write_manifest(
        adapter, build_manifest(adapter, base_fingerprint=fingerprint, base_name="tiny", libraries={})
    )


def test_the_manifest_decides_whether_the_base_is_the_served_one(adapter, check, edit_config, target):
    edit_config(base_model_name_or_path="someone/Big-Llama")
    add_manifest(adapter, target.fingerprint)
    report = check()
    assert report.ok
    assert report.warnings == ()
    assert report.facts.has_manifest
    add_manifest(adapter, "e" * 64)
    message = only(check(), "base_mismatch")
    assert "e" * 64 in message
    assert "f" * 64 in message


def test_a_file_that_the_manifest_does_not_describe_is_refused(adapter, check, edit_config, target):
    add_manifest(adapter, target.fingerprint)
    edit_config(lora_alpha=9)
    report = check()
    assert only(report, "hash_mismatch")
    assert report.problems[0].subject == CONFIG_NAME


def test_a_malformed_manifest_and_probe_are_refused(adapter, check):
    (adapter / "hotswap.json").write_text('{"schema_version": 2}')
    (adapter / "hotswap_probe.json").write_text("{}")
    assert codes(check()) == {"manifest_invalid", "probe_invalid"}


def test_a_probe_made_on_another_base_is_refused(adapter, check, target):
    case = ProbeCase(
        prompt_token_ids=[1], expected_token_ids=[2], adapter_logprobs=[-0.1], base_logprobs=[-3.0]
    )
    write_probe(adapter, Probe(base_fingerprint="e", dtype="float32", tolerance=0.01, cases=[case]))
    report = check()
    assert only(report, "base_mismatch")
    write_probe(
        adapter, Probe(base_fingerprint=target.fingerprint, dtype="float32", tolerance=0.01, cases=[case])
    )
    report = check()
    assert report.ok
    assert report.facts.has_probe


@pytest.mark.parametrize("proven", [True, False])
def test_an_adapter_of_the_base_that_the_served_one_was_quantised_from_is_a_warning(
    adapter, check, target, proven
):
    rounded = RoundedBase({target.fingerprint: "tiny-llama"}, scheme="int8-w8a8", rounding=0.2)
    quantised = replace(target, fingerprint="9" * 64, name="tiny-llama-int8-w8a8", rounded=rounded)
    if proven:
        case = ProbeCase(
            prompt_token_ids=[1], expected_token_ids=[2], adapter_logprobs=[-0.1], base_logprobs=[-3.0]
        )
        write_probe(
            adapter, Probe(base_fingerprint=target.fingerprint, dtype="float32", tolerance=0.01, cases=[case])
        )
    manifest = build_manifest(
        adapter, base_fingerprint=target.fingerprint, base_name="tiny-llama", libraries={}
    )
    write_manifest(adapter, manifest)
    report = check(target=quantised)
    assert report.ok
    (warning,) = report.warnings
    assert warning.code == "base_quantised"
    assert "quantised from it (int8-w8a8)" in warning.message
    assert "hotswap adapters export FOLDER --base QUANTISED" in warning.message
    assert ("judged by what quantising" in warning.message) is proven
    other = replace(quantised, rounded=RoundedBase({"8" * 64: "another"}))
    assert only(check(target=other), "base_mismatch")


def test_without_a_base_the_report_says_what_was_not_compared(check):
    report = check(target=None)
    assert report.ok
    assert [warning.code for warning in report.warnings] == ["no_target"]


def test_many_findings_of_one_kind_are_cut_and_counted(adapter, check):
    foreign = TargetBase("f" * 64, "other", {"transformer.h.0.attn.c_attn": (32, 96)}, "x/Tiny-Llama")
    write_tensors(
        adapter / WEIGHTS_NAME,
        {
            f"base_model.model.model.layers.{i}.self_attn.q_proj.lora_{f}.weight": np.ones(
                (4, 32) if f == "A" else (32, 4), np.float32
            )
            for i in range(40)
            for f in "AB"
        },
    )
    report = check(target=foreign)
    assert codes(report) == {"target_unknown"}
    assert len(report.problems) == 6
    assert "35 more" in report.problems[-1].message


def test_what_is_written_about_a_hostile_adapter_is_printable(adapter, check, edit_config):
    edit_config(peft_type="\x1b[2J\nINFO fake", base_model_name_or_path="a\nb", rank_pattern={"\n": 1})
    edit_tensors(adapter, **{"x\n\x1b[31m": np.ones(1, np.float32)})
    (adapter / "bad\nname.bin").write_text("")
    report = check()
    for finding in (*report.problems, *report.warnings):
        assert finding.message.isprintable()
        assert finding.subject.isprintable()
    assert all(name.isprintable() for name in report.facts.ignored_files)


def test_ten_megabytes_take_less_than_a_second(tmp_path):
    modules = {f"model.layers.{i}.self_attn.q_proj": (576, 576) for i in range(280)}
    folder = make_tiny_adapter(tmp_path / "large", linear_modules=modules, rank=8)
    target = TargetBase("f", "base", modules)
    check_adapter(folder, target=target)
    started = time.process_time()
    report = check_adapter(folder, target=target)
    assert report.facts.num_bytes is not None
    assert report.facts.num_bytes > 10_000_000
    assert time.process_time() - started < 1


def test_a_large_adapter_is_read_in_pieces(tmp_path):
    modules = {f"model.layers.{i}.mlp.up_proj": (4096, 4096) for i in range(40)}
    folder = make_tiny_adapter(tmp_path / "large", linear_modules=modules, rank=64, targets=["up_proj"])
    code = (
        "import resource, sys, numpy; from pathlib import Path; from adapters.check import check_adapter; "
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
        "report = check_adapter(Path(sys.argv[1]), target=None, max_lora_rank=64); "
        "assert report.ok and report.facts.num_bytes > 80_000_000; "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    arguments = [sys.executable, "-c", code, str(folder)]
    result = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert int(result.stdout) < 50 * 1024, "kilobytes"


def test_the_check_needs_no_deep_learning_library(adapter):
    code = (
        "import sys; from pathlib import Path; from adapters.check import check_adapter; "
        f"assert check_adapter(Path({str(adapter)!r}), target=None).ok; "
        "print([m for m in ('torch', 'transformers', 'peft', 'vllm', 'safetensors') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
