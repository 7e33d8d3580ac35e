"""Configurations that an engine would refuse, misread or serve otherwise than they were trained."""

from __future__ import annotations

import pytest

from adapters.check import check_adapter
from adapters.config import CONFIG_NAME
from adapters.tiny import make_tiny_adapter
from tests.adapters.checking import codes, only
from tests.adapters.conftest import LINEAR_MODULES


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


def test_an_alpha_of_zero_changes_nothing(check, edit_config):
    edit_config(lora_alpha=0)
    only(check(), "zero_effect")


def test_another_name_for_the_base_is_only_a_warning(check, edit_config):
    for fitting in ("other/tiny-llama", "/home/me/Tiny-Llama/", None, ""):
        edit_config(base_model_name_or_path=fitting)
        assert check().warnings == ()
    edit_config(base_model_name_or_path="someone/Big-Llama")
    report = check()
    assert report.ok
    assert [warning.code for warning in report.warnings] == ["base_name_differs"]
