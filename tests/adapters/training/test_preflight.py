"""What is wrong with a run is said before the long part, all at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.data.settings import DataSettings
from adapters.data.source import DataSource
from adapters.errors import TrainingSettingsError
from adapters.training.memory import estimate_memory
from adapters.training.precision import Hardware, choose_precision
from adapters.training.preflight import check_memory, check_run
from adapters.training.run import train_adapter
from adapters.training.settings import TrainSettings
from bases.passport import Passport, read_passport
from bases.resolve import ResolvedBase, resolve_base
from tests.adapters.training.conftest import quiet

Make = Callable[..., TrainSettings]
OLD_CPU = Hardware("cpu", native_bf16=False, name="Old One")
NEW_CPU = Hardware("cpu", native_bf16=True, name="New One")
OLD_GPU = Hardware("cuda", native_bf16=False, name="Turing")


@pytest.fixture
def base(tiny_base: Path, tmp_path: Path) -> tuple[ResolvedBase, Passport]:
    resolved = resolve_base(str(tiny_base), home=tmp_path)
    return resolved, read_passport(resolved, home=tmp_path)


def test_every_problem_is_listed(base: tuple[ResolvedBase, Passport], make_settings: Make) -> None:
    settings = make_settings(
        targets="q_proj,nonsense",
        optimizer="adamw-8bit",
        precision="fp16",
        max_length_tokens=100_000,
        method="prompt",
        push="http://127.0.0.1:1",
    )
    with pytest.raises(TrainingSettingsError) as caught:
        check_run("Not A Name", settings, *base, num_processes=1)
    text = str(caught.value)
    assert "--name" in text
    assert "--precision fp16 needs a GPU" in text
    assert "--targets nonsense: the base has no such layers, only" in text
    assert "--max-length-tokens 100000 is more than the base's context of 512 tokens" in text
    assert "--push: --method prompt cannot be served, because" in text


def test_a_single_problem_stands_alone(base: tuple[ResolvedBase, Passport], make_settings: Make) -> None:
    with pytest.raises(TrainingSettingsError) as caught:
        check_run("risk", make_settings(optimizer="adamw-8bit"), *base, num_processes=1)
    assert str(caught.value).startswith("--optimizer adamw-8bit needs")


def test_more_processes_than_examples_in_a_step_are_refused(
    base: tuple[ResolvedBase, Passport], make_settings: Make
) -> None:
    with pytest.raises(TrainingSettingsError, match="give at least 12"):
        check_run("risk", make_settings(batch_size=8, accumulation_steps=3), *base, num_processes=4)


def test_a_home_that_is_a_file_is_refused(
    base: tuple[ResolvedBase, Passport], make_settings: Make, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(TrainingSettingsError, match="cannot be written"):
        check_run("risk", make_settings(home=tmp_path / "taken"), *base, num_processes=1)


def test_loftq_without_a_quantised_base_is_refused_with_the_way_out(
    base: tuple[ResolvedBase, Passport], make_settings: Make
) -> None:
    with pytest.raises(TrainingSettingsError, match="is not quantised: quantise it"):
        check_run("risk", make_settings(method="loftq"), *base, num_processes=1)


def test_a_base_that_cannot_be_dequantised_is_refused(
    base: tuple[ResolvedBase, Passport], make_settings: Make, tmp_path: Path
) -> None:
    folder = shutil.copytree(base[0].path, tmp_path / "gptq")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"quantization_config": {"quant_method": "gptq"}})
    )
    resolved = resolve_base(str(folder), home=tmp_path)
    with pytest.raises(TrainingSettingsError, match="quantised with 'gptq'"):
        check_run("risk", make_settings(), resolved, base[1], num_processes=1)


def test_too_little_memory_is_said_with_what_would_need_less(
    base: tuple[ResolvedBase, Passport], make_settings: Make
) -> None:
    settings = make_settings(method="full")
    estimate = estimate_memory(
        base[1].facts, settings, bytes_per_number=4, tokens_per_part=512, checkpointing=False
    )
    check_memory(estimate, estimate.total_bytes, settings, "machine")
    with pytest.raises(TrainingSettingsError) as caught:
        check_memory(estimate, estimate.total_bytes - 1, settings, "machine")
    assert all(word in str(caught.value) for word in ("--method lora", "--gradient-checkpointing", "GiB"))


def test_the_estimate_grows_with_what_is_trained(
    base: tuple[ResolvedBase, Passport], make_settings: Make
) -> None:
    def total(**given: object) -> int:
        tokens = int(str(given.pop("tokens", 512)))
        settings = make_settings(**given)
        return estimate_memory(
            base[1].facts, settings, bytes_per_number=4, tokens_per_part=tokens, checkpointing=False
        ).total_bytes

    assert total(rank=4) < total(rank=8) < total(method="full")
    assert total(tokens=100) < total(tokens=1000)
    assert total(targets="q_proj") < total()


def test_precision_is_what_the_device_multiplies_and_says_why() -> None:
    assert choose_precision("auto", NEW_CPU).precision == "bf16"
    assert choose_precision("auto", OLD_CPU).precision == "fp32"
    assert choose_precision("auto", OLD_GPU).precision == "fp32"
    assert "Old One does not multiply bfloat16" in choose_precision("auto", OLD_CPU).reason
    assert "emulates" in choose_precision("bf16", OLD_CPU).reason
    assert choose_precision("fp16", OLD_GPU).precision == "fp16"
    with pytest.raises(TrainingSettingsError, match="needs a GPU"):
        choose_precision("fp16", NEW_CPU)


def test_wrong_settings_and_wrong_data_are_said_together(make_settings: Make, tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text("{\n")
    with pytest.raises(TrainingSettingsError) as caught:
        train_adapter(
            [DataSource(tmp_path / "broken.jsonl")],
            name="risk",
            settings=make_settings(targets="nonsense"),
            data_settings=DataSettings(),
            say=quiet,
        )
    assert "--targets nonsense" in str(caught.value)
    assert "broken.jsonl" in str(caught.value)
    assert not (tmp_path / "home" / "runs").exists()
