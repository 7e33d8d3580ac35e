"""What is written computes what was trained, through stock PEFT, for every way of training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from adapters.artefact import MANIFEST_NAME, PROBE_NAME, WEIGHTS_NAME
from adapters.check import check_adapter
from adapters.config import CONFIG_NAME
from adapters.errors import ExportError, NotServableError
from adapters.export.export import export_adapter
from adapters.export.report import ExportReport
from adapters.manifest import parse_manifest
from adapters.probe import read_probe
from adapters.target import TargetBase
from tests.adapters.export.trained_models import (
    CONVERTED_KINDS,
    EXACT_KINDS,
    OTHER_KINDS,
    PROMPTS,
    TARGETS,
    TinyBase,
    logits_of,
    train,
)

# Two orders of the same float32 sums.
EXACT_TOLERANCE = 1e-5


def export(model: Any, base: TinyBase, folder: Path, **options: Any) -> ExportReport:
    arguments: dict[str, Any] = {
        "method": "test",
        "base": base.resolved,
        "passport": base.passport,
        "folder": folder,
        "probe_prompts": PROMPTS,
        "training": {"data": {"fingerprint": "d" * 64, "train": 20}},
    }
    return export_adapter(model, **(arguments | options))


def reload(base: TinyBase, folder: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(base.load(), folder).eval()


def difference(model: Any, served: Any) -> float:
    """The largest relative difference of the logits over several prompts."""
    pairs = zip(logits_of(model), logits_of(served), strict=True)
    return max(float((left - right).norm() / left.norm()) for left, right in pairs)


def target_of(base: TinyBase) -> TargetBase:
    return TargetBase(base.passport.fingerprint, base.resolved.name, base.passport.facts.linear_modules)


@pytest.fixture(params=["llama", "qwen2"])
def base(request: pytest.FixtureRequest) -> TinyBase:
    found: TinyBase = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("kind", EXACT_KINDS)
def test_low_rank_methods_are_written_exactly(kind: str, base: TinyBase, tmp_path: Path):
    model = train(base, kind)
    report = export(model, base, tmp_path / "out")
    assert report.is_exact
    assert report.trained_difference_nats < 1e-3
    assert report.effect_nats > 0.01
    assert difference(model, reload(base, report.folder)) < EXACT_TOLERANCE
    assert check_adapter(report.folder, target=target_of(base)).ok


@pytest.mark.parametrize("kind", CONVERTED_KINDS)
def test_other_methods_are_converted_within_the_limit(kind: str, base: TinyBase, tmp_path: Path):
    model = train(base, kind)
    report = export(model, base, tmp_path / "out", max_error=0.02)
    assert report.max_relative_error <= 0.02
    assert difference(model, reload(base, report.folder)) < 0.02
    assert check_adapter(report.folder, target=target_of(base)).ok
    assert any("singular value decomposition" in sentence for sentence in report.conversions)
    if kind == "loha":  # of rank 4 in truth: the product of two of rank 2
        assert report.is_exact
        assert report.rank == 4


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_whatever_peft_can_merge_can_be_written(kind: str, llama: TinyBase, tmp_path: Path):
    model = train(llama, kind)
    report = export(model, llama, tmp_path / "out", max_error=0.001)
    assert report.max_relative_error <= 0.001
    assert difference(model, reload(llama, report.folder)) < 0.001


def test_trained_biases_are_refused(qwen2: TinyBase, tmp_path: Path):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["o_proj"], bias="all", task_type="CAUSAL_LM")
    model = get_peft_model(qwen2.load(), config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.add_(0.1)
    report = export(model, qwen2, tmp_path / "out")
    assert "bias='all', but no bias changed: left out" in report.conversions
    with torch.no_grad():
        model.base_model.model.model.layers[1].self_attn.k_proj.bias.add_(0.1)
    with pytest.raises(ExportError, match=r"the bias of model\.layers\.1\.self_attn\.k_proj was trained"):
        export(model, qwen2, tmp_path / "again")


def test_plain_lora_keeps_its_very_bits(llama: TinyBase, tmp_path: Path):
    from safetensors.torch import load_file

    model = train(llama, "rslora")
    model.save_pretrained(tmp_path / "peft")
    report = export(model, llama, tmp_path / "out")
    theirs, ours = load_file(tmp_path / "peft" / WEIGHTS_NAME), load_file(report.folder / WEIGHTS_NAME)
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    config = json.loads((report.folder / CONFIG_NAME).read_text())
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (4, 6, True)
    assert report.max_relative_error == 0.0
    assert report.conversions == ()


def test_exporting_twice_gives_the_same_digest_and_leaves_the_model_alone(llama: TinyBase, tmp_path: Path):
    model = train(llama, "dora").train()
    model.base_model.model.set_attn_implementation("eager")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = export(model, llama, tmp_path / "one"), export(model, llama, tmp_path / "two")
    assert first.digest == second.digest
    assert model.training
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("kind", ["pissa", "olora"])
def test_with_the_initial_adapter_the_difference_is_made_of_the_two(kind, llama: TinyBase, tmp_path: Path):
    model = train(llama, kind, initial_folder=tmp_path / "initial")
    report = export(model, llama, tmp_path / "out", initial_adapter_folder=tmp_path / "initial")
    assert report.rank == 8
    assert report.is_exact
    assert difference(model, reload(llama, report.folder)) < EXACT_TOLERANCE
    assert "the initial adapter" in report.conversions[0]


def test_a_wrong_initial_adapter_is_overruled_by_the_weights(llama: TinyBase, tmp_path: Path):
    model = train(llama, "pissa")
    train(llama, "lora", initial_folder=tmp_path / "other")
    report = export(model, llama, tmp_path / "out", initial_adapter_folder=tmp_path / "other")
    assert report.is_exact
    assert difference(model, reload(llama, report.folder)) < EXACT_TOLERANCE


def test_a_base_that_was_rounded_is_measured_and_refused(llama: TinyBase, tmp_path: Path):
    """LoftQ's case: what was trained stands on a rounded base, and the rounding has no low rank."""
    model = train(llama, "pissa")
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("base_layer.weight"):
                value.copy_((value * 8).round() / 8)
    with pytest.raises(ExportError, match=r"off by more than 5\.0% at rank 16"):
        export(model, llama, tmp_path / "out", rank=16)
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_changed_base_under_plain_lora_is_refused(llama: TinyBase, tmp_path: Path):
    model = train(llama, "lora")
    with torch.no_grad():
        model.base_model.model.model.norm.weight.mul_(1.1)
    with pytest.raises(ExportError, match="Something beside the adapter changed in training"):
        export(model, llama, tmp_path / "out")


def test_a_change_of_too_high_rank_is_refused_with_the_numbers(llama: TinyBase, tmp_path: Path):
    with pytest.raises(ExportError, match=r"in 14 of 14 modules .* at rank 4 \(worst: .*Allow a higher rank"):
        export(train(llama, "full"), llama, tmp_path / "out", rank=4)


@pytest.mark.parametrize("kind", ["lora", "patterns", "dora"])
def test_a_wished_rank_is_written(kind: str, llama: TinyBase, tmp_path: Path):
    report = export(train(llama, kind), llama, tmp_path / "out", rank=64)
    assert report.rank == 64
    assert check_adapter(report.folder, target=target_of(llama)).facts.rank == 64


def test_bfloat16_halves_the_file_and_its_rounding_is_measured(llama: TinyBase, tmp_path: Path):
    model = train(llama, "lora")
    whole = export(model, llama, tmp_path / "float32")
    half = export(model, llama, tmp_path / "bfloat16", dtype="bfloat16")
    sizes = [(report.folder / WEIGHTS_NAME).stat().st_size for report in (whole, half)]
    assert sizes[1] < 0.6 * sizes[0]
    assert 1e-4 < half.max_relative_error < 1e-2
    assert whole.digest != half.digest


@pytest.mark.parametrize("part", ["model.norm.weight", "model.embed_tokens.weight"])
def test_a_full_fine_tune_of_more_than_linear_layers_is_refused(part: str, llama: TinyBase, tmp_path: Path):
    model = train(llama, "full")
    with torch.no_grad():
        model.get_parameter(part).mul_(1.01)
    with pytest.raises(ExportError, match=rf"outside the linear layers changed \({part} by 1\.00%\)"):
        export(model, llama, tmp_path / "out")


def test_a_full_fine_tune_that_learned_nothing_is_refused(llama: TinyBase, tmp_path: Path):
    with pytest.raises(ExportError, match="No linear layer differs"):
        export(llama.load().eval(), llama, tmp_path / "out")


def test_an_untrained_adapter_is_refused(llama: TinyBase, tmp_path: Path):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(llama.load(), LoraConfig(target_modules=TARGETS, task_type="CAUSAL_LM"))
    with pytest.raises(ExportError, match="changes nothing"):
        export(model, llama, tmp_path / "out")


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
def test_a_diverged_training_is_named_as_such(kind: str, llama: TinyBase, tmp_path: Path):
    model = train(llama, kind)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "layers.1" in name and ("lora_B" in name or (kind == "full" and "v_proj" in name)):
                value[0, 0] = float("nan")
    with pytest.raises(ExportError, match=r"model\.layers\.1\..* NaN or infinite: the training diverged"):
        export(model, llama, tmp_path / "out")


def test_prompt_methods_are_not_servable_and_say_why(llama: TinyBase, tmp_path: Path):
    from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model

    for config in (
        PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
    ):
        model = get_peft_model(llama.load(), config)
        with pytest.raises(
            NotServableError, match=r"(keys and values|vectors in front).*It trains and evaluates"
        ):
            export(model, llama, tmp_path / "out")


def test_a_method_that_scales_biases_is_not_servable(qwen2: TinyBase, tmp_path: Path):
    with pytest.raises(NotServableError, match="scales the layer's bias"):
        export(train(qwen2, "ia3"), qwen2, tmp_path / "out")


def test_whole_layers_are_left_out_unchanged_and_refused_changed(llama: TinyBase, tmp_path: Path):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    model = get_peft_model(llama.load(), config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.add_(0.1)
    report = export(model, llama, tmp_path / "out")
    assert "lm_head (modules_to_save) equals the base's and was left out" in report.conversions
    with torch.no_grad():
        model.base_model.model.lm_head.modules_to_save["default"].weight.mul_(1.5)
    with pytest.raises(ExportError, match=r"lm_head was trained whole .* changed by 50\.00%"):
        export(model, llama, tmp_path / "again")


def test_an_adapted_embedding_is_refused(llama: TinyBase, tmp_path: Path):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["embed_tokens"], task_type="CAUSAL_LM")
    model = get_peft_model(llama.load(), config)
    with pytest.raises(ExportError, match=r"model\.embed_tokens was adapted, but is not a linear module"):
        export(model, llama, tmp_path / "out")


def test_only_some_layers_are_written_under_names_that_mean_them_alone(llama: TinyBase, tmp_path: Path):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["q_proj"], layers_to_transform=[1], task_type="CAUSAL_LM")
    model = get_peft_model(llama.load(), config)
    with torch.no_grad():
        model.base_model.model.model.layers[1].self_attn.q_proj.lora_B["default"].weight.add_(0.1)
    report = export(model, llama, tmp_path / "out")
    config = json.loads((report.folder / CONFIG_NAME).read_text())
    assert config["target_modules"] == ["model.layers.1.self_attn.q_proj"]
    assert difference(model, reload(llama, report.folder)) < EXACT_TOLERANCE


def test_the_folder_is_whole_and_names_no_machine_path(llama: TinyBase, tmp_path: Path):
    report = export(
        train(llama, "patterns"),
        llama,
        tmp_path / "out",
        training={"data": {"source": "/home/someone/data.jsonl"}, "metrics": {"loss": 0.25}},
    )
    names = {path.name for path in report.folder.iterdir()}
    assert names == {CONFIG_NAME, WEIGHTS_NAME, MANIFEST_NAME, PROBE_NAME, "README.md"}
    assert str(llama.resolved.path) not in (report.folder / CONFIG_NAME).read_text()
    manifest = parse_manifest((report.folder / MANIFEST_NAME).read_bytes())
    assert manifest.digest == report.digest
    assert manifest.base.fingerprint == llama.passport.fingerprint
    export_record = manifest.training["export"]
    assert isinstance(export_record, dict)
    assert export_record["is_exact"] is True
    assert manifest.libraries.keys() >= {"torch", "transformers", "peft"}
    card = (report.folder / "README.md").read_text()
    assert report.digest in card
    assert "| loss | 0.25 |" in card
    assert "/home/someone" not in card
    assert "data.jsonl" in card
    probe = read_probe(report.folder)
    assert probe is not None
    assert probe.base_fingerprint == llama.passport.fingerprint


def test_a_full_disk_is_named_and_nothing_is_left(
    llama: TinyBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    model = train(llama, "lora")
    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(ExportError, match=r"cannot be written below .*No space left"):
        export(model, llama, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(llama: TinyBase, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("mine")
    with pytest.raises(ExportError, match="nothing is overwritten"):
        export(train(llama, "lora"), llama, tmp_path / "out")
    assert (tmp_path / "out" / "precious").read_text() == "mine"
