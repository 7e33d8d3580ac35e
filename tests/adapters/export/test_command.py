"""Adapters made elsewhere, with stock PEFT, become servable."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adapters.artefact import WEIGHTS_NAME
from adapters.check import check_adapter
from adapters.config import CONFIG_NAME
from adapters.errors import ExportError, NotServableError
from adapters.export.command import describe, export_folder
from adapters.target import TargetBase
from hotswap import app
from tests.adapters.export.test_export import EXACT_TOLERANCE, difference, reload
from tests.adapters.export.trained_models import TinyBase, train


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOTSWAP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def run(llama: TinyBase, tmp_path: Path):
    said: list[str] = []

    def export(folder: Path, **options):
        out = tmp_path / f"out-{folder.name}"
        base = str(llama.resolved.path)
        return export_folder(folder, base=base, out=out, say=said.append, **options), said

    return export


@pytest.mark.parametrize("kind", ["patterns", "pissa", "olora", "adalora", "dora"])
def test_a_peft_folder_of_any_method_becomes_servable(kind: str, llama: TinyBase, run, tmp_path: Path):
    model = train(llama, kind)
    with warnings.catch_warnings():  # PEFT takes a module that AdaLoRA pruned away for a broken shard
        warnings.filterwarnings("ignore", message=".*have invalid shape")
        model.save_pretrained(tmp_path / kind)
    report, _ = run(tmp_path / kind, given={"max_error": 0.01})
    served = reload(llama, report.folder)
    assert difference(model, served) < (0.01 if kind == "dora" else EXACT_TOLERANCE)
    target = TargetBase(llama.passport.fingerprint, "tiny", llama.passport.facts.linear_modules)
    assert check_adapter(report.folder, target=target).ok
    assert report.digest[:8] in "\n".join(describe(report))


def test_a_random_initialisation_needs_the_initial_adapter(llama: TinyBase, run, tmp_path: Path):
    model = train(llama, "pissa", initial_folder=tmp_path / "initial")
    model.peft_config["default"].init_lora_weights = "pissa_niter_4"
    model.save_pretrained(tmp_path / "trained")
    with pytest.raises(ExportError, match="--initial"):
        run(tmp_path / "trained")
    report, _ = run(tmp_path / "trained", initial=tmp_path / "initial")
    assert report.is_exact
    assert difference(model, reload(llama, report.folder)) < EXACT_TOLERANCE


def test_a_fully_fine_tuned_model_becomes_an_adapter(llama: TinyBase, run, tmp_path: Path):
    model = train(llama, "full")
    model.save_pretrained(tmp_path / "model")
    report, _ = run(tmp_path / "model", given={"rank": 128})
    assert report.is_exact  # the tiny base is 128 wide
    assert difference(model, reload(llama, report.folder)) < EXACT_TOLERANCE


def test_prompts_come_from_a_file(llama: TinyBase, run, tmp_path: Path):
    train(llama, "lora").save_pretrained(tmp_path / "lora")
    (tmp_path / "prompts.txt").write_text("one prompt\n\nand another\n")
    report, _ = run(tmp_path / "lora", prompts=tmp_path / "prompts.txt")
    cases = json.loads((report.folder / "hotswap_probe.json").read_text())["cases"]
    assert len(cases) == 2
    shutil.rmtree(report.folder)
    (tmp_path / "prompts.txt").write_text("\n")
    with pytest.raises(ExportError, match="holds no prompts"):
        run(tmp_path / "lora", prompts=tmp_path / "prompts.txt")


def test_weights_as_a_pickle_are_not_opened(llama: TinyBase, run, tmp_path: Path):
    train(llama, "lora").save_pretrained(tmp_path / "lora")
    (tmp_path / "lora" / WEIGHTS_NAME).rename(tmp_path / "lora" / "adapter_model.bin")
    with pytest.raises(ExportError, match="a pickle can run code"):
        run(tmp_path / "lora")


def test_weights_of_other_names_are_an_error_not_an_untrained_adapter(llama: TinyBase, run, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    train(llama, "lora").save_pretrained(tmp_path / "lora")
    weights = tmp_path / "lora" / WEIGHTS_NAME
    tensors = load_file(weights)
    save_file({name.replace("layers.1", "layers.9"): value for name, value in tensors.items()}, weights)
    with pytest.raises(ExportError, match="Was it trained on another base"):
        run(tmp_path / "lora")


def test_a_prompt_tuning_folder_is_not_servable(run, tmp_path: Path):
    (tmp_path / "prefix").mkdir()
    config = {"peft_type": "PREFIX_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 4}
    (tmp_path / "prefix" / CONFIG_NAME).write_text(json.dumps(config))
    with pytest.raises(NotServableError, match="adds keys and values"):
        run(tmp_path / "prefix")


def test_a_folder_without_a_model_says_what_is_missing(run, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExportError, match="holds neither"):
        run(tmp_path / "empty")
    with pytest.raises(ExportError, match="is not a folder"):
        run(tmp_path / "missing")


def test_the_command_line_takes_flags_and_refuses_wrong_ones(llama: TinyBase, tmp_path: Path):
    train(llama, "lora").save_pretrained(tmp_path / "lora")
    arguments = ["adapters", "export", str(tmp_path / "lora"), "--base", str(llama.resolved.path), "--out"]
    done = CliRunner().invoke(app, [*arguments, str(tmp_path / "out"), "--rank", "16", "--probe-cases", "2"])
    assert done.exit_code == 0, done.output
    assert "rank 16, exact up to rounding" in done.output
    assert json.loads((tmp_path / "out" / CONFIG_NAME).read_text())["r"] == 16
    refused = CliRunner().invoke(app, [*arguments, str(tmp_path / "again"), "--dtype", "int3"])
    assert isinstance(refused.exception, ExportError)
    assert "dtype: Input should be 'float32' or 'bfloat16'" in str(refused.exception)


def test_a_place_that_cannot_be_written_is_refused_before_the_base_is_looked_for(tmp_path: Path):
    (tmp_path / "a file").touch()
    out = tmp_path / "a file" / "out"
    with pytest.raises(ExportError, match="out cannot be made"):
        export_folder(tmp_path, base="no-such-base", out=out, say=lambda _: None)


def test_peft_by_itself_still_leaves_doras_magnitudes_out(llama: TinyBase):
    from peft import convert_to_lora

    model = train(llama, "dora")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, tensors = convert_to_lora(model, rank=4)
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    layer = model.get_submodule(name)
    plain = layer.get_delta_weight("default").detach()
    found = tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]
    assert float((found - plain).norm() / plain.norm()) < 1e-3, "PEFT converts DoRA now: see docs/export.md"


def test_the_command_imports_nothing_heavy():
    code = "import adapters.export.command, sys; print(sorted({'torch', 'transformers', 'peft'} & {*sys.modules}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
