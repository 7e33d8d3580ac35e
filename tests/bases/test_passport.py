from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from bases import passport as passport_module
from bases.embedded import materialise_embedded
from bases.errors import BaseInvalidError
from bases.passport import read_passport
from bases.resolve import ResolvedBase
from bases.tiny import make_tiny_base


def as_base(folder, name="tiny") -> ResolvedBase:
    return ResolvedBase(name, str(folder), folder, None, "folder")


def edit_json(path, change) -> None:
    value = json.loads(path.read_text()) if path.exists() else {}
    change(value)
    path.write_text(json.dumps(value))


def changed_parts(first, second) -> set[str]:
    """The parts in which two passports differ; the fingerprint must differ exactly if some part does."""
    theirs = second.parts.model_dump()
    changed = {key for key, value in first.parts.model_dump().items() if theirs[key] != value}
    assert (first.fingerprint != second.fingerprint) == bool(changed)
    return changed


@pytest.fixture
def original(tiny_base, tmp_path):
    return read_passport(as_base(tiny_base), home=tmp_path / "home")


@pytest.fixture
def reread(base_copy, tmp_path):
    """Reads the passport of a copy of the tiny base after `change(folder)`."""

    def read(change, name="changed"):
        folder = base_copy(name)
        change(folder)
        return read_passport(as_base(folder), home=tmp_path / "home")

    return read


def test_it_says_what_the_base_is(original):
    assert original.name == "tiny"
    assert original.weight_bytes == 4 * original.facts.num_parameters
    assert original.facts.architecture == "LlamaForCausalLM"
    assert original.parts.quantisation is None
    assert original.parts.chat_template is not None
    assert len(original.fingerprint) == 64
    assert not original.reasoning


def test_a_copy_elsewhere_has_the_same_fingerprint(original, reread):
    assert changed_parts(original, reread(lambda _: None)) == set()


def test_resharding_and_another_file_order_change_nothing(original, reread):
    def reshard(folder):
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        names = sorted(tensors, reverse=True)
        for number, part in enumerate((names[:5], names[5:])):
            save_file({name: tensors[name] for name in part}, folder / f"model-{number}.safetensors")

    assert changed_parts(original, reread(reshard)) == set()


def test_other_weights_change_the_weights_alone(original, tmp_path):
    other = read_passport(as_base(make_tiny_base(tmp_path / "other", seed=1)), home=tmp_path / "home")
    assert changed_parts(original, other) == {"weights"}


def test_what_saving_elsewhere_changes_in_the_config_changes_nothing(original, reread):
    def save_again(folder):
        edit_json(
            folder / "config.json",
            lambda config: config.update(
                {
                    "_name_or_path": "x",
                    "transformers_version": "9",
                    "torch_dtype": "bfloat16",
                    "dtype": "bfloat16",
                }
            ),
        )

    assert changed_parts(original, reread(save_again)) == set()


def test_a_number_in_the_config_changes_the_config(original, reread):
    def stretch(folder):
        edit_json(folder / "config.json", lambda config: config.update(rms_norm_eps=1e-6))

    assert changed_parts(original, reread(stretch)) == {"config"}


def test_quantisation_changes_its_own_part_alone(original, reread):
    def quantise(folder):
        edit_json(
            folder / "config.json", lambda config: config.update(quantization_config={"quant_method": "gptq"})
        )

    quantised = reread(quantise)
    assert changed_parts(original, quantised) == {"quantisation"}
    assert quantised.facts.quant_method == "gptq"


def test_the_chat_template_has_a_part_of_its_own(original, reread):
    def rewrite(folder):
        (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")

    assert changed_parts(original, reread(rewrite)) == {"chat_template"}


def test_no_chat_template_is_none(reread):
    assert reread(lambda folder: (folder / "chat_template.jinja").unlink()).parts.chat_template is None


@pytest.mark.parametrize("named", [False, True])
def test_the_same_template_inside_the_tokenizer_config_is_the_same(original, reread, named):
    def move_inside(folder):
        text = (folder / "chat_template.jinja").read_text()
        (folder / "chat_template.jinja").unlink()
        template = (
            [{"name": "tools", "template": "x"}, {"name": "default", "template": text}] if named else text
        )
        edit_json(folder / "tokenizer_config.json", lambda config: config.update(chat_template=template))

    assert changed_parts(original, reread(move_inside)) == set()


@pytest.mark.parametrize("source", ["llama", "qwen2", "converted"])
def test_a_copy_saved_by_transformers_is_the_same_base(tmp_path, tiny_gguf, source):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if source == "converted":
        folder = materialise_embedded(tmp_path, source=tiny_gguf)
    else:
        folder = make_tiny_base(tmp_path / source, architecture=source)
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(tmp_path / "saved", max_shard_size="100KB")
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    assert len(list((tmp_path / "saved").glob("*.safetensors"))) > 1
    first, second = (read_passport(as_base(path), home=tmp_path) for path in (folder, tmp_path / "saved"))
    assert changed_parts(first, second) == set()
    assert first.facts == second.facts


def test_what_saving_a_tokenizer_after_use_changes_changes_nothing(original, reread):
    def use_and_save(folder):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer(["a", "a longer text"], padding=True, truncation=True, max_length=8)
        tokenizer.save_pretrained(folder)
        assert json.loads((folder / "tokenizer.json").read_text())["truncation"] is not None

    assert changed_parts(original, reread(use_and_save)) == set()


def test_another_end_token_changes_the_tokenizer(original, reread):
    def end_otherwise(folder):
        edit_json(
            folder / "tokenizer_config.json",
            lambda config: config.update(eos_token={"content": "<|endoftext|>", "special": True}),
        )

    assert changed_parts(original, reread(end_otherwise)) == {"tokenizer"}


def test_a_special_token_written_with_flags_is_the_same_token(original, reread):
    def write_flags(folder):
        edit_json(
            folder / "tokenizer_config.json",
            lambda config: config.update(eos_token={"content": "<|im_end|>", "special": True}),
        )

    assert changed_parts(original, reread(write_flags)) == set()


def test_a_tokenizer_of_the_older_kind_counts_by_its_files(reread):
    def make_old(folder: Path) -> None:
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.json").write_text('{"a": 0}')
        (folder / "merges.txt").write_text("#version: 0.2")

    def make_old_with_another_merge(folder):
        make_old(folder)
        (folder / "merges.txt").write_text("#version: 0.2\na b")

    first, second = reread(make_old), reread(make_old_with_another_merge, "second")
    assert changed_parts(first, second) == {"tokenizer"}


class TestCache:
    def test_a_second_reading_hashes_nothing(self, tiny_base, tmp_path, original, monkeypatch):
        def fail(folder):
            raise BaseInvalidError("hashed again")

        monkeypatch.setattr(passport_module, "hash_weights", fail)
        assert read_passport(as_base(tiny_base), home=tmp_path / "home") == original

    def test_another_name_for_the_same_folder_is_not_hidden_by_it(self, tiny_base, tmp_path, original):
        renamed = read_passport(as_base(tiny_base, "other"), home=tmp_path / "home")
        assert renamed.name == "other"
        assert renamed.fingerprint == original.fingerprint

    def test_a_changed_file_is_read_again(self, base_copy, tmp_path):
        folder = base_copy("base")
        first = read_passport(as_base(folder), home=tmp_path / "home")
        weights = folder / "model.safetensors"
        before = weights.stat()
        raw = bytearray(weights.read_bytes())
        raw[-1] ^= 1
        weights.write_bytes(raw)
        os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        second = read_passport(as_base(folder), home=tmp_path / "home")
        assert changed_parts(first, second) == {"weights"}

    @pytest.mark.parametrize("content", [b"", b"{", b'{"name": "x"}', b"\xff"])
    def test_a_broken_one_is_made_anew(self, tiny_base, tmp_path, original, content, caplog):
        [kept] = (tmp_path / "home" / "passports").iterdir()
        kept.write_bytes(content)
        with caplog.at_level(logging.WARNING):
            assert read_passport(as_base(tiny_base), home=tmp_path / "home") == original
        assert "is made anew" in caplog.text
        assert kept.read_bytes() != content

    def test_a_home_that_cannot_be_written_costs_time_only(self, tiny_base, tmp_path, original, caplog):
        (tmp_path / "file").write_text("")
        with caplog.at_level(logging.WARNING):
            assert read_passport(as_base(tiny_base), home=tmp_path / "file") == original
        assert "next start hashes again" in caplog.text

    def test_nothing_half_written_stays(self, tmp_path, original):
        [kept] = (tmp_path / "home" / "passports").iterdir()
        assert kept.suffix == ".json"


class TestReasoning:
    BOTH_TEMPLATE = "{{ '<think>' }}{{ messages }}{{ '</think>' }}"
    R1_TEMPLATE = "{{ messages[0].content.split('</think>')[-1] }}"
    PLAIN_TEMPLATE = "{{ messages }}"

    @pytest.mark.parametrize(
        ("template", "tokens_in_vocabulary", "expected"),
        [
            (BOTH_TEMPLATE, False, True),
            (BOTH_TEMPLATE, True, True),
            (R1_TEMPLATE, True, True),
            (R1_TEMPLATE, False, False),
            (PLAIN_TEMPLATE, True, False),
            (PLAIN_TEMPLATE, False, False),
            (None, True, True),
            (None, False, False),
        ],
    )
    def test_template_and_vocabulary_decide_together(self, reread, template, tokens_in_vocabulary, expected):
        def change(folder):
            if template is None:
                (folder / "chat_template.jinja").unlink()
            else:
                (folder / "chat_template.jinja").write_text(template)
            if tokens_in_vocabulary:
                edit_json(
                    folder / "tokenizer.json",
                    lambda rules: rules["added_tokens"].extend(
                        {"id": 512 + i, "content": tag, "special": False}
                        for i, tag in enumerate(["<think>", "</think>"])
                    ),
                )

        assert reread(change).reasoning is expected

    def test_tokens_that_only_the_tokenizer_config_adds_count(self, reread):
        def change(folder):
            (folder / "chat_template.jinja").unlink()
            added = {"512": {"content": "<think>"}, "513": {"content": "</think>"}}
            edit_json(
                folder / "tokenizer_config.json", lambda config: config.update(added_tokens_decoder=added)
            )

        assert reread(change).reasoning


def test_broken_weights_are_refused(reread):
    with pytest.raises(BaseInvalidError, match="Fetch it again"):
        reread(lambda folder: (folder / "model.safetensors").write_bytes(b"short"))
