"""DeepSeek's byte-level tokenizers under the class name that their folders give."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bases.errors import BaseConversionError
from bases.passport import read_passport
from bases.resolve import resolve_base
from bases.tiny import make_tiny_base
from tests.full_disk import files_no_larger_than

TEXT = "Hello world, the server\n  loads 東京"


@pytest.fixture
def misnamed(tmp_path: Path) -> Path:
    """A base as the published DeepSeek-R1-Distill-Llama: byte-level, called LlamaTokenizerFast."""
    folder = make_tiny_base(tmp_path / "My R1", chat="r1")
    return name_class(folder, "LlamaTokenizerFast")


def name_class(folder: Path, name: str) -> Path:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": name}))
    return folder


def encode(folder: Path) -> list[int]:
    from transformers import AutoTokenizer

    return list(AutoTokenizer.from_pretrained(folder).encode(TEXT))


def rules(folder: Path) -> list[int]:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT).ids


def test_transformers_still_overrules_the_file(misnamed):
    assert encode(misnamed) != rules(misnamed), (
        "transformers heeds tokenizer.json now: tokenizer_class.py can go"
    )


def test_the_base_is_resolved_to_one_that_is_tokenised_as_its_file_says(misnamed, tmp_path):
    said: list[str] = []
    base = resolve_base(str(misnamed), home=tmp_path / "home", progress=said.append)
    assert encode(base.path) == rules(misnamed)
    assert (base.name, base.path.name, base.source) == ("My-R1", "My R1", "folder")
    assert base.path.is_relative_to(tmp_path / "home")
    assert "LlamaTokenizerFast, which would lose every space" in said[0]
    assert {path.name for path in base.path.iterdir()} == {path.name for path in misnamed.iterdir()}
    assert (base.path / "model.safetensors").samefile(misnamed / "model.safetensors")


def test_the_folder_of_the_user_stays_as_it_is(misnamed, tmp_path):
    before = {path.name: path.read_bytes() for path in misnamed.iterdir()}
    resolve_base(str(misnamed), home=tmp_path / "home")
    assert {path.name: path.read_bytes() for path in misnamed.iterdir()} == before


def test_again_it_is_the_same_folder_and_nothing_is_said(misnamed, tmp_path):
    first = resolve_base(str(misnamed), home=tmp_path / "home")
    said: list[str] = []
    assert resolve_base(str(misnamed), home=tmp_path / "home", progress=said.append) == first
    assert said == []


def test_it_is_the_same_base_by_its_passport(misnamed, tmp_path):
    wrong = resolve_base(str(misnamed), home=tmp_path / "home")
    right = resolve_base(str(make_tiny_base(tmp_path / "right", chat="r1")), home=tmp_path / "home")
    fingerprints = [read_passport(base, home=tmp_path / "home").fingerprint for base in (wrong, right)]
    assert fingerprints[0] == fingerprints[1]


def test_a_changed_folder_is_linked_anew(misnamed, tmp_path):
    first = resolve_base(str(misnamed), home=tmp_path / "home")
    (misnamed / "generation_config.json").unlink()
    second = resolve_base(str(misnamed), home=tmp_path / "home")
    assert second.path != first.path
    assert not (second.path / "generation_config.json").exists()


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "GPT2Tokenizer"])
def test_other_classes_are_left_alone(tmp_path, name):
    folder = name_class(make_tiny_base(tmp_path / "base"), name)
    assert resolve_base(str(folder), home=tmp_path / "home").path == folder


def test_a_tokenizer_that_is_llamas_is_left_alone(misnamed, tmp_path):
    path = misnamed / "tokenizer.json"
    sentencepiece = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"decoder": sentencepiece}))
    assert resolve_base(str(misnamed), home=tmp_path / "home").path == misnamed


def test_a_home_that_cannot_be_written_is_named_and_nothing_half_made_is_left(misnamed, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BaseConversionError, match=r"tokenizer cannot be set right in .*file/bases"):
        resolve_base(str(misnamed), home=tmp_path / "file")
    with pytest.raises(BaseConversionError, match="Free space there"), files_no_larger_than(10):
        resolve_base(str(misnamed), home=tmp_path / "home")
    assert [path for path in (tmp_path / "home").rglob("*") if not path.is_dir()] == []
    assert resolve_base(str(misnamed), home=tmp_path / "home").path.is_dir()
