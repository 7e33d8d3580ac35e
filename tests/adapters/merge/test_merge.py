"""A base with an adapter merged in answers as the two did, and is a base like any other."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from adapters.errors import AdapterNotFoundError, MergeError
from adapters.export.export import export_adapter
from adapters.merge.command import merge
from adapters.merge.report import MergeReport
from bases.errors import HotswapError
from bases.lineage import ParentBase, read_lineage
from bases.passport import read_passport
from bases.resolve import resolve_base
from hotswap import app
from tests.adapters.export.trained_models import PROMPTS, TARGETS, TinyBase, logits_of, make_base, train

COPIED = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> TinyBase:
    return make_base(tmp_path_factory.mktemp("tied"), tied_embeddings=True)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOTSWAP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def merged(base: TinyBase, tmp_path: Path) -> Callable[..., MergeReport]:
    def make(adapter: Path | str, *, into: TinyBase = base, name: str = "out", **options: Any) -> MergeReport:
        arguments: dict[str, Any] = {"initial": None, "given": {}} | options
        out = arguments.pop("out", tmp_path / name)
        return merge(str(adapter), base=str(into.resolved.path), out=out, say=lambda _: None, **arguments)

    return make


def saved(model: Any, folder: Path) -> Path:
    with warnings.catch_warnings():
        # PEFT takes a module that AdaLoRA pruned away for a broken shard, and asks whether embeddings are meant.
        warnings.filterwarnings("ignore", message=".*have invalid shape")
        warnings.filterwarnings("ignore", message="Setting `save_embedding_layers`")
        model.save_pretrained(folder)
    return folder


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def assert_alike(model: Any, folder: Path) -> None:
    expected, found = (torch.cat([x.flatten() for x in logits_of(one)]) for one in (model, load(folder)))
    assert float((found - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize(
    "kind", ["lora", "rslora", "patterns", "adalora", "dora", "loha", "oft", "ia3", "pissa"]
)
def test_whatever_peft_trains_is_merged_exactly(
    kind: str, base: TinyBase, merged: Callable[..., MergeReport], tmp_path: Path
) -> None:
    model = train(base, kind)
    report = merged(saved(model, tmp_path / kind))
    assert_alike(model, report.folder)
    assert report.dtype == "float32"
    assert report.fidelity.is_faithful
    assert report.difference_nats < 1e-3 < report.effect_nats


def test_everything_but_the_weights_is_taken_over_bit_for_bit(
    base: TinyBase, merged: Callable[..., MergeReport], tmp_path: Path
) -> None:
    folder = merged(saved(train(base, "lora"), tmp_path / "lora")).folder
    for name in (*COPIED, "config.json"):
        assert (folder / name).read_bytes() == (base.resolved.path / name).read_bytes(), name
    resolved = resolve_base(str(folder), home=tmp_path)
    passport = read_passport(resolved, home=tmp_path)
    assert passport.facts == base.passport.facts  # still tied
    assert passport.parts.weights != base.passport.parts.weights
    assert passport.parts.model_dump(exclude={"weights"}) == base.passport.parts.model_dump(
        exclude={"weights"}
    )


def test_the_lineage_says_what_was_merged_and_goes_on_from_the_parent_s(
    base: TinyBase, merged: Callable[..., MergeReport], tmp_path: Path
) -> None:
    exported = export_adapter(
        train(base, "lora"),
        method="lora",
        base=base.resolved,
        passport=base.passport,
        folder=tmp_path / "task",
        probe_prompts=PROMPTS,
        training={},
    )
    first = merged(exported.folder).folder
    lineage = read_lineage(first)
    assert lineage is not None
    (step,) = lineage.steps
    assert (step.kind, step.adapter) == ("merge", f"task@{exported.digest[:8]}")
    assert step.parent == ParentBase(fingerprint=base.passport.fingerprint, name=base.resolved.name)
    assert step.details["adapter_digest"] == exported.digest
    again = merged(saved(train(base, "lora", seed=3), tmp_path / "next"), into=as_base(first), name="again")
    lineage = read_lineage(again.folder)
    assert lineage is not None
    assert lineage.steps[0] == step
    assert len(lineage.steps) == 2
    assert "no manifest says" in again.notes[0]


def as_base(folder: Path) -> TinyBase:
    resolved = resolve_base(str(folder), home=folder.parent)
    return TinyBase(resolved, read_passport(resolved, home=folder.parent))


@pytest.mark.parametrize("where", ["lm_head", "embed_tokens", "modules_to_save"])
def test_tied_embeddings_are_taken_apart_where_an_adapter_changes_one_of_them(
    where: str, base: TinyBase, merged: Callable[..., MergeReport], tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    targets = TARGETS if where == "modules_to_save" else [*TARGETS, where]
    whole = ["lm_head"] if where == "modules_to_save" else None
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Model with `tie_word_embeddings=True`|Model has `tie_word")
        model = get_peft_model(
            base.load(),
            LoraConfig(r=4, target_modules=targets, modules_to_save=whole, task_type="CAUSAL_LM"),
        )
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.add_(torch.randn_like(value) * 0.05)
    report = merged(saved(model.eval(), tmp_path / "adapter"))
    assert_alike(model, report.folder)
    config = json.loads((report.folder / "config.json").read_text())
    assert config["tie_word_embeddings"] is False
    assert "stored apart" in report.notes[0]
    written = load(report.folder)
    is_input = where == "embed_tokens"
    kept = written.get_output_embeddings() if is_input else written.get_input_embeddings()
    assert torch.equal(kept.weight, base.load().get_input_embeddings().weight)


def test_bfloat16_is_written_when_asked_for_and_its_rounding_said(
    base: TinyBase, merged: Callable[..., MergeReport], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    adapter = saved(train(base, "lora"), tmp_path / "lora")
    report = merged(adapter, given={"dtype": "bfloat16"})
    assert json.loads((report.folder / "config.json").read_text())["dtype"] == "bfloat16"
    weights = load_file(report.folder / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    assert 1e-3 < report.difference_nats < 0.5
    # "auto" is what the base is stored as.
    again = merged(adapter, into=as_base(report.folder), name="again")
    assert again.dtype == "bfloat16"


def test_a_merged_base_that_answers_otherwise_is_not_kept(
    base: TinyBase,
    merged: Callable[..., MergeReport],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import adapters.merge.checkpoint as room

    real = room.write_checkpoint

    def damaged(model: Any, folder: Path, **options: Any) -> None:
        with torch.no_grad():
            model.model.layers[0].mlp.up_proj.weight.mul_(1.5)
        real(model, folder, **options)

    monkeypatch.setattr("adapters.merge.merge.write_checkpoint", damaged)
    with pytest.raises(MergeError, match="does not answer as base and adapter do"):
        merged(saved(train(base, "lora"), tmp_path / "lora"))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == ["lora"]


def test_what_cannot_be_merged_is_refused_with_what_to_do(
    base: TinyBase, merged: Callable[..., MergeReport], tmp_path: Path
) -> None:
    adapter = saved(train(base, "lora"), tmp_path / "lora")
    other = make_base(tmp_path / "other", seed=5)
    exported = export_adapter(
        train(other, "lora"),
        method="lora",
        base=other.resolved,
        passport=other.passport,
        folder=tmp_path / "foreign",
        probe_prompts=PROMPTS,
        training={},
    )
    with pytest.raises(MergeError, match=r"cannot be merged.*fingerprint"):
        merged(exported.folder)
    with pytest.raises(AdapterNotFoundError, match="is a base already"):
        merged(saved(train(base, "full"), tmp_path / "full"))
    (tmp_path / "there").mkdir()
    with pytest.raises(MergeError, match="nothing is overwritten"):
        merged(adapter, name="there")
    with pytest.raises(MergeError, match="dtype: Input should be"):
        merged(adapter, given={"dtype": "int3"})
    rounded = as_base(Path(_copied(base.resolved.path, tmp_path / "rounded")))
    config = json.loads((rounded.resolved.path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "compressed-tensors"}
    (rounded.resolved.path / "config.json").write_text(json.dumps(config))
    with pytest.raises(MergeError, match=r"is quantised.*then quantise the result"):
        merged(adapter, into=rounded)
    assert not (tmp_path / "out").exists()


def _copied(source: Path, target: Path) -> str:
    import shutil

    return str(shutil.copytree(source, target))


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_read(merged, tmp_path: Path):
    (tmp_path / "a file").touch()
    with pytest.raises(MergeError, match="out cannot be made"):
        merged("no-such-adapter", out=tmp_path / "a file" / "out")


def test_an_untrained_adapter_is_refused(
    base: TinyBase, merged: Callable[..., MergeReport], tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    untrained = get_peft_model(base.load(), LoraConfig(r=4, target_modules=TARGETS, task_type="CAUSAL_LM"))
    with pytest.raises(MergeError, match="changes nothing"):
        merged(saved(untrained, tmp_path / "untrained"))


def test_the_command_puts_it_where_names_are_looked_up_and_refuses_with_one_line(
    base: TinyBase, home: Path, tmp_path: Path
) -> None:
    adapter = saved(train(base, "lora"), tmp_path / "task")
    arguments = ["adapters", "merge", str(adapter), "--base", str(base.resolved.path)]
    done = CliRunner().invoke(app, [*arguments, "--prompts", "4"])
    assert done.exit_code == 0, done.output
    folder = home / "bases" / "made" / "tiny-llama-task"
    assert (folder / "hotswap_base.json").is_file()
    assert "with task@" in done.output
    refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, HotswapError)
    assert [path.name for path in (home / "bases" / "made").iterdir()] == ["tiny-llama-task"]
