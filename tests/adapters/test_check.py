"""Folders, manifests and probes that are checked, and the report of everything that was found."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from adapters.artefact import WEIGHTS_NAME
from adapters.check import check_adapter
from adapters.config import CONFIG_NAME
from adapters.errors import AdapterCheckError
from adapters.manifest import build_manifest, write_manifest
from adapters.probe import Probe, ProbeCase, write_probe
from adapters.target import RoundedBase, TargetBase
from adapters.tiny import make_tiny_adapter
from tests.adapters.checking import Q0, codes, edit_tensors, only
from tests.adapters.conftest import LINEAR_MODULES, write_tensors


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


def test_too_large_a_file_is_not_read(adapter, check):
    report = check(max_bytes=100)
    assert "at most 100" in only(report, "too_large")
    assert report.facts.digest is None


def test_truncated_weights_are_refused(adapter, check):
    raw = (adapter / WEIGHTS_NAME).read_bytes()
    (adapter / WEIGHTS_NAME).write_bytes(raw[:-1])
    assert "cut off" in only(check(), "safetensors_invalid")


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
