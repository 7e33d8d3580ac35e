"""Settings are checked together and refused with the flags as the user types them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapters.errors import TrainingSettingsError
from adapters.training.methods.registry import METHODS
from adapters.training.settings import FREE_ON_RESUME, TrainSettings, load_train_settings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "magic"}, "--method: 'magic' is none of lora, rslora"),
        ({"rank": 0}, "--rank: Input should be greater than or equal to 1"),
        ({"batch_size": 2, "accumulation_steps": 4}, "--accumulation-steps 4 is above --batch-size 2"),
        ({"targets": "lm_head"}, "--targets lm_head: the output head is not adapted"),
        ({"targets": "all-linear,q_proj"}, "`all-linear` already holds every other name"),
        ({"precision": "fp8"}, "--precision: Input should be 'auto', 'bf16', 'fp16' or 'fp32'"),
    ],
)
def test_wrong_settings_are_named_as_they_are_typed(given: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingSettingsError) as caught:
        load_train_settings(**given)
    assert message in str(caught.value)


def test_all_wrong_settings_are_reported_at_once() -> None:
    with pytest.raises(TrainingSettingsError) as caught:
        load_train_settings(rank=0, dropout=2.0, schedule="zigzag")
    assert all(flag in str(caught.value) for flag in ("--rank", "--dropout", "--schedule"))


def test_targets_are_a_comma_list() -> None:
    assert load_train_settings(targets="q_proj, v_proj").targets == ("q_proj", "v_proj")
    assert load_train_settings(targets=["q_proj", "k_proj,v_proj"]).targets == ("q_proj", "k_proj", "v_proj")


def test_the_learning_rate_comes_from_the_method_unless_given() -> None:
    for name, method in METHODS.items():
        assert load_train_settings(method=name).peak_learning_rate == method.learning_rate
    assert load_train_settings(method="dora", learning_rate=0.5).peak_learning_rate == 0.5


def test_flags_go_before_the_environment_and_the_gateways_variables_are_heard(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOTSWAP_TRAIN_RANK", "8")
    monkeypatch.setenv("HOTSWAP_HOME", str(tmp_path))
    monkeypatch.setenv("HOTSWAP_BASE", "some/base")
    settings = load_train_settings()
    assert (settings.rank, settings.home, settings.base) == (8, tmp_path, "some/base")
    assert load_train_settings(rank=4, base="other").rank == 4
    monkeypatch.setenv("HOTSWAP_TRAIN_BASE", "own/base")
    assert load_train_settings().base == "own/base"


def test_every_setting_has_a_description_and_what_is_free_on_resume_exists() -> None:
    assert all(field.description for field in TrainSettings.model_fields.values())
    assert set(TrainSettings.model_fields) >= FREE_ON_RESUME
