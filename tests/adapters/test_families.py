"""The DeepSeek families and the R1 distillations from a file of examples to a published adapter."""

from __future__ import annotations

import pytest

from adapters.check import check_adapter
from adapters.errors import TrainingSettingsError
from adapters.target import describe_target
from bases.passport import read_passport
from bases.resolve import resolve_base
from tests.adapters.families import FAMILIES, LATENT_LAYERS, Trained, train_family


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    return {family: train_family(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_validation_loss_falls(trained, family):
    outcome = trained[family].outcome
    assert outcome.after.loss < 0.9 * outcome.before.loss


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_published_passes_the_gateways_check(trained, family):
    one = trained[family]
    base = resolve_base(str(one.given), home=one.home, progress=print)
    passport = read_passport(base, home=one.home)
    report = check_adapter(one.outcome.adapter_folder, target=describe_target(base, passport))
    assert report.problems == ()
    assert report.facts.has_manifest
    assert report.facts.has_probe
    assert set(report.facts.target_modules) == (
        LATENT_LAYERS if family.startswith("deepseek") else set(passport.facts.linear_suffixes())
    )


@pytest.mark.parametrize("family", ["deepseek_v2", "deepseek_v3"])
def test_the_run_says_which_layers_it_leaves_out_and_why(trained, family):
    said = "\n".join(trained[family].said)
    assert "Left out: vLLM folds kv_b_proj" in said
    assert "Left out: PEFT reads up_proj as that of the experts" in said


@pytest.mark.parametrize("name", ["kv_b_proj", "up_proj"])
def test_a_layer_that_cannot_be_served_is_refused_before_training(tmp_path, name):
    with pytest.raises(TrainingSettingsError, match=f"--targets {name}: "):
        train_family("deepseek_v3", tmp_path, targets=f"q_a_proj,{name}")


@pytest.mark.parametrize("method", ["dora", "pissa", "adalora", "full"])
def test_other_methods_end_in_an_adapter_that_is_served_too(tmp_path, method):
    one = train_family("deepseek_v3", tmp_path, method=method, max_steps=3)
    base = resolve_base(str(one.given), home=one.home, progress=print)
    report = check_adapter(
        one.outcome.adapter_folder, target=describe_target(base, read_passport(base, home=one.home))
    )
    assert report.problems == ()
    assert set(report.facts.target_modules) == LATENT_LAYERS


def test_prefix_tuning_of_latent_attention_is_refused_before_training(tmp_path):
    with pytest.raises(TrainingSettingsError, match="keeps one latent for all heads"):
        train_family("deepseek_v3", tmp_path, method="prefix")
