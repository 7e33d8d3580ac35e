"""Several adapters become one that adds up what they do, on the base as it is served."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from adapters.check import check_adapter
from adapters.compose.command import compose
from adapters.config import CONFIG_NAME
from adapters.errors import AdapterNameError, ExportError
from adapters.export.plain_lora import read_factors
from adapters.export.report import ExportReport
from adapters.probe import read_probe
from adapters.target import describe_target
from bases.errors import HotswapError
from hotswap import app
from tests.adapters.export.trained_models import PROMPTS, TinyBase, logits_of

MakeAdapter = Callable[..., Path]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOTSWAP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def joined(adapters: list[Path], base: TinyBase, out: Path | None, **options: Any) -> ExportReport:
    arguments = {"name": None, "weights": None, "given": {"probe_cases": 4}} | options
    return compose(
        [str(folder) for folder in adapters],
        base=str(base.resolved.path),
        out=out,
        say=lambda _: None,
        **arguments,
    )


def logits_with(base: TinyBase, folder: Path) -> torch.Tensor:
    """Of base plus adapter through stock PEFT, on the dequantised weights."""
    from peft import PeftModel

    from adapters.training.base_model import load_training_model

    model = load_training_model(base.resolved, dtype=torch.float32).model
    served = PeftModel.from_pretrained(model, folder).eval()
    return torch.cat([one.flatten() for one in logits_of(served)])


def logits_by_hand(base: TinyBase, adapters: list[tuple[Path, float]]) -> torch.Tensor:
    """Of the dequantised base with every adapter's change added to its weights in float64."""
    from adapters.training.base_model import load_training_model

    model = load_training_model(base.resolved, dtype=torch.float32).model.eval()
    with torch.no_grad():
        for folder, weight in adapters:
            for module, factors in read_factors(folder).items():
                changed = model.get_submodule(module).weight
                changed.copy_((changed.double() + weight * factors.dense()).float())
    return torch.cat([one.flatten() for one in logits_of(model)])


def assert_alike(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert float((found - expected).norm() / expected.norm()) < 1e-5


def test_adapters_of_the_quantised_base_and_of_its_original_are_joined_and_proven_on_the_quantised_one(
    original: TinyBase, quantised: TinyBase, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    recovery = make_adapter(quantised, "recovery", "rslora", seed=1)
    task = make_adapter(original, "task", "patterns", seed=2)
    report = joined([recovery, task], quantised, tmp_path / "out")
    assert report.rank == 4 + 8
    assert report.is_exact
    assert_alike(
        logits_with(quantised, report.folder), logits_by_hand(quantised, [(recovery, 1.0), (task, 1.0)])
    )
    assert any("quantised from it (w4a16)" in note for note in report.conversions)
    checked = check_adapter(
        report.folder, target=describe_target(quantised.resolved, quantised.passport), max_lora_rank=64
    )
    assert checked.ok
    assert not checked.warnings  # it is an adapter of the quantised base now
    manifest = json.loads((report.folder / "hotswap.json").read_text())
    names = list(manifest["training"]["joined"])
    assert [name.partition("@")[0] for name in names] == ["recovery", "task"]
    assert manifest["training"]["joined"][names[1]]["rank"] == 8
    assert names[0] in (report.folder / "README.md").read_text()


def test_weights_say_how_strongly_each_goes_in(
    quantised: TinyBase, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    first, second = make_adapter(quantised, "a", seed=1), make_adapter(quantised, "b", seed=2)
    report = joined([first, second], quantised, tmp_path / "out", weights="-1,0.5")
    assert_alike(
        logits_with(quantised, report.folder), logits_by_hand(quantised, [(first, -1.0), (second, 0.5)])
    )
    assert "b@" in report.conversions[0] and "0.5 of its strength" in report.conversions[0]


def test_the_probe_asks_what_the_probes_of_the_parts_ask(
    quantised: TinyBase, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    first, second = make_adapter(quantised, "a", seed=1), make_adapter(quantised, "b", seed=2)
    report = joined([first, second], quantised, tmp_path / "out")
    probe = read_probe(report.folder)
    assert probe is not None
    assert probe.base_fingerprint == quantised.passport.fingerprint
    asked = [case.prompt_token_ids for case in probe.cases]
    assert sum(prompt in PROMPTS for prompt in asked) >= 2


def test_a_rank_beyond_the_gateway_s_names_the_flag_and_one_beyond_the_engine_s_is_refused(
    quantised: TinyBase, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    from dataclasses import replace

    from adapters.compose.compose import compose_adapters
    from adapters.compose.part import read_parts
    from adapters.export.settings import ExportSettings
    from adapters.published import FoundAdapter

    folder = make_adapter(quantised, "a", seed=1)
    target = describe_target(quantised.resolved, quantised.passport)
    (part,) = read_parts([FoundAdapter("a", folder)], [1.0], target)

    def wide(rank: int) -> Any:
        return replace(part, factors={name: one.padded(rank) for name, one in part.factors.items()})

    def composed(rank: int, out: str) -> ExportReport:
        return compose_adapters(
            [part, wide(rank)],
            base=quantised.resolved,
            passport=quantised.passport,
            folder=tmp_path / out,
            default_prompts=PROMPTS[:2],
            settings=ExportSettings(probe_cases=2),
        )

    with pytest.raises(ExportError, match=r"rank 513.*--rank"):
        composed(509, "too-wide")
    assert not (tmp_path / "too-wide").exists()


def test_joined_beyond_64_it_says_with_what_to_start_the_gateway(
    quantised: TinyBase, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    folders = [make_adapter(quantised, f"a{seed}", seed=seed) for seed in range(2)]
    for folder in folders:
        widen(folder, 40)
    report = joined(folders, quantised, tmp_path / "out")
    assert report.rank == 80
    assert any("--max-lora-rank 128" in note for note in report.conversions)
    cut = joined(folders, quantised, tmp_path / "cut", given={"rank": 8, "probe_cases": 2})
    assert cut.rank == 8
    assert cut.is_exact  # of the 80, 8 are not zero


def widen(folder: Path, rank: int) -> None:
    """Pad the adapter with zeros, as one of that rank that learned little; its strength stays."""
    from safetensors.torch import load_file, save_file

    weights = folder / "adapter_model.safetensors"
    config = json.loads((folder / CONFIG_NAME).read_text())
    padded = {}
    for name, value in load_file(weights).items():
        missing = rank - config["r"]
        zeros = value.new_zeros((missing, value.shape[1]) if "lora_A" in name else (value.shape[0], missing))
        padded[name] = torch.cat([value, zeros], dim=0 if "lora_A" in name else 1)
    save_file(padded, weights)
    config |= {"lora_alpha": config["lora_alpha"] * rank / config["r"], "r": rank}
    (folder / CONFIG_NAME).write_text(json.dumps(config))
    for name in ("hotswap.json", "hotswap_probe.json"):
        (folder / name).unlink()


def test_what_cannot_be_joined_is_refused_with_the_reason(
    original: TinyBase, quantised: TinyBase, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    first, second = make_adapter(quantised, "a", seed=1), make_adapter(quantised, "b", seed=2)
    out = tmp_path / "out"
    with pytest.raises(ExportError, match="nothing to join"):
        joined([first], quantised, out)
    with pytest.raises(ExportError, match="joined with itself"):
        joined([first, first], quantised, out)
    with pytest.raises(ExportError, match="expected 2 numbers"):
        joined([first, second], quantised, out, weights="1")
    with pytest.raises(ExportError, match="expected 2 numbers"):
        joined([first, second], quantised, out, weights="1,0")
    with pytest.raises(ExportError, match=r"(?s)a: .*fingerprint.*\n  b: .*fingerprint"):
        joined([first, second], original, out)  # adapters of the rounded base do not fit the original
    with pytest.raises(ExportError, match="--out FOLDER, or --name NAME"):
        joined([first, second], quantised, None)
    with pytest.raises(AdapterNameError):
        joined([first, second], quantised, None, name="Not A Name")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(ExportError, match="nothing is overwritten"):
        joined([first, second], quantised, tmp_path / "full")
    assert not out.exists()


def test_the_command_publishes_under_a_name_and_takes_published_names(
    quantised: TinyBase, make_adapter: MakeAdapter, home: Path
) -> None:
    from adapters.export.publish import publish_adapter

    first, second = make_adapter(quantised, "a", seed=1), make_adapter(quantised, "b", seed=2)
    publish_adapter(first, home=home, name="recovery")
    arguments = ["adapters", "compose", "recovery", str(second), "--base", str(quantised.resolved.path)]
    done = CliRunner().invoke(app, [*arguments, "--name", "both", "--probe-cases", "2"])
    assert done.exit_code == 0, done.output
    assert "rank 8, exact up to rounding" in done.output
    (published,) = (home / "adapters" / "both").iterdir()
    assert str(published) in done.output
    refused = CliRunner().invoke(app, [*arguments, "--name", "both", "--weights", "1"])
    assert isinstance(refused.exception, HotswapError)


@pytest.mark.parametrize(
    ("place", "refusal"), [("out", "out cannot be made"), ("name", "Nothing can be put into .*a file")]
)
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_read(
    place: str, refusal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "a file").touch()
    monkeypatch.setenv("HOTSWAP_HOME", str(tmp_path / "a file"))
    out, name = (tmp_path / "a file" / "out", None) if place == "out" else (None, "risk")
    with pytest.raises(ExportError, match=refusal):
        compose(["no", "such"], base="none", out=out, name=name, weights=None, given={}, say=lambda _: None)
