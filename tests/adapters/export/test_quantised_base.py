"""Adapters on a quantised base: made for it, or proven anew on it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adapters.check import check_adapter
from adapters.export.command import export_folder
from adapters.export.export import export_adapter
from adapters.probe import read_probe
from adapters.report import CheckReport
from adapters.target import describe_target
from tests.adapters.export.test_export import EXACT_TOLERANCE, difference
from tests.adapters.export.trained_models import PROMPTS, TinyBase, make_base, train
from tests.adapters.quantised_bases import QuantisedBase, quantise


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> TinyBase:
    return make_base(tmp_path_factory.mktemp("original"), "qwen2")


@pytest.fixture(scope="module", params=["W4A16", "W8A8"])
def quantised(
    request: pytest.FixtureRequest, original: TinyBase, tmp_path_factory: pytest.TempPathFactory
) -> QuantisedBase:
    return quantise(original, tmp_path_factory.mktemp(request.param) / "tiny", request.param)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTSWAP_HOME", str(tmp_path / "home"))


def exported(base: TinyBase, kind: str, folder: Path) -> Path:
    return export_adapter(
        train(base, kind),
        method=kind,
        base=base.resolved,
        passport=base.passport,
        folder=folder,
        probe_prompts=PROMPTS,
        training={},
        max_error=0.01,
        probe_cases=4,
    ).folder


def checked(folder: Path, base: TinyBase) -> CheckReport:
    return check_adapter(folder, target=describe_target(base.resolved, base.passport))


def on_base(base: TinyBase, folder: Path) -> torch.nn.Module:
    from peft import PeftModel

    model: torch.nn.Module = PeftModel.from_pretrained(base.load(), folder).eval()
    return model


def test_its_passport_lists_the_layers_that_were_quantised(
    original: TinyBase, quantised: QuantisedBase
) -> None:
    facts = quantised.passport.facts
    assert facts.linear_modules == original.passport.facts.linear_modules
    assert facts.num_parameters == original.passport.facts.num_parameters
    assert facts.quant_method == "compressed-tensors"
    assert quantised.passport.fingerprint != original.passport.fingerprint


@pytest.mark.parametrize("kind", ["lora", "dora", "pissa"])
def test_what_was_trained_on_the_quantised_base_is_exported_for_it(
    kind: str, quantised: QuantisedBase, tmp_path: Path
) -> None:
    folder = exported(quantised, kind, tmp_path / kind)
    report = checked(folder, quantised)
    assert report.ok and not report.warnings
    assert difference(train(quantised, kind), on_base(quantised, folder)) < (
        0.01 if kind == "dora" else EXACT_TOLERANCE
    )


def test_an_adapter_of_the_original_is_a_warning_until_it_is_proven_on_the_quantised_base(
    original: TinyBase, quantised: QuantisedBase, tmp_path: Path
) -> None:
    folder = exported(original, "lora", tmp_path / "task")
    before = checked(folder, quantised)
    assert before.ok
    assert [warning.code for warning in before.warnings] == ["base_quantised"]
    report = export_folder(
        folder,
        base=str(quantised.resolved.path),
        out=tmp_path / "proven",
        given={"probe_cases": 4},
        say=lambda _: None,
    )
    after = checked(report.folder, quantised)
    assert after.ok and not after.warnings
    assert report.digest == before.facts.digest  # the same adapter, with another proof
    old, new = read_probe(folder), read_probe(report.folder)
    assert old is not None and new is not None
    assert (old.base_fingerprint, new.base_fingerprint) == (
        original.passport.fingerprint,
        quantised.passport.fingerprint,
    )
    assert all(case.prompt_token_ids in PROMPTS for case in old.cases)
    assert (
        sum(case.prompt_token_ids in PROMPTS for case in new.cases) >= 2
    )  # it asks what the old proof asked
    # Of the quantised base it is no adapter of the original any more.
    assert [problem.code for problem in checked(report.folder, original).problems] == ["base_mismatch"] * 2
