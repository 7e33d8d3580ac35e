from __future__ import annotations

import json
from pathlib import Path

import pytest

from bases.errors import BaseInvalidError
from bases.folder import check_folder, read_json_object


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_complete_base_passes(tiny_base):
    check_folder(tiny_base)


def test_an_empty_folder_is_told_everything_that_is_missing(tmp_path):
    with pytest.raises(BaseInvalidError) as caught:
        check_folder(tmp_path)
    text = str(caught.value)
    assert str(tmp_path) in text
    assert "config.json is missing" in text
    assert "weights (*.safetensors) are missing" in text
    assert "a tokenizer is missing" in text
    assert text.count("\n- ") == 3


def test_pickle_weights_are_refused_by_name(base_copy):
    folder = base_copy("pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BaseInvalidError, match=r"pickle files \(pytorch_model\.bin\)"):
        check_folder(folder)


def test_pickle_weights_beside_safetensors_do_no_harm(base_copy):
    folder = base_copy("both")
    (folder / "pytorch_model.bin").write_bytes(b"")
    check_folder(folder)


def test_code_of_its_own_needs_trust(base_copy):
    folder = base_copy("custom")
    edit_config(folder, auto_map={"AutoModelForCausalLM": "modeling.Custom"})
    with pytest.raises(BaseInvalidError, match=r"auto_map.*trust_remote_code"):
        check_folder(folder)
    check_folder(folder, trust_remote_code=True)


def test_an_adapter_is_recognised_as_one(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(BaseInvalidError, match="this is an adapter, not a base"):
        check_folder(tmp_path)


def test_every_missing_shard_is_listed(base_copy):
    folder = base_copy("sharded")
    (folder / "model.safetensors").unlink()
    weight_map = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(
        BaseInvalidError, match=r"(?s)model-1\.safetensors is listed.*model-2\.safetensors is listed"
    ):
        check_folder(folder)


def test_a_model_that_does_not_generate_is_refused(base_copy):
    folder = base_copy("bert")
    edit_config(folder, architectures=["BertForMaskedLM"])
    with pytest.raises(BaseInvalidError, match=r"BertForMaskedLM.*not a causal language model"):
        check_folder(folder)


@pytest.mark.parametrize("text", ["[1]", "{", "\x00"])
def test_a_config_that_is_no_json_object_is_refused(base_copy, text):
    folder = base_copy("broken")
    (folder / "config.json").write_text(text)
    with pytest.raises(BaseInvalidError, match=r"config\.json"):
        check_folder(folder)


def test_a_config_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(BaseInvalidError, match=r"x\.json cannot be read as JSON"):
        read_json_object(tmp_path / "x.json")


@pytest.mark.parametrize("kept", [["tokenizer.model"], ["tekken.json"], ["vocab.json", "merges.txt"]])
def test_every_kind_of_tokenizer_counts(base_copy, kept):
    folder = base_copy("other-tokenizer")
    (folder / "tokenizer.json").unlink()
    for name in kept:
        (folder / name).write_text("x")
    check_folder(folder)
