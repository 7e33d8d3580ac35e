from __future__ import annotations

import json

import pytest

from bases.errors import BaseConversionError
from bases.gguf_checkpoint import CHECKPOINT_FILES, convert_gguf
from tests.bases.tiny_gguf import write_tiny_gguf
from tests.full_disk import files_no_larger_than


@pytest.fixture(scope="module")
def converted(tiny_gguf, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted")
    convert_gguf(tiny_gguf, folder)
    return folder


def test_it_writes_the_files_it_promises(converted):
    assert sorted(path.name for path in converted.iterdir()) == sorted(CHECKPOINT_FILES)


def test_weights_equal_what_transformers_reads_from_the_file_bit_for_bit(converted, tiny_gguf):
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(
        tiny_gguf.parent, gguf_file=tiny_gguf.name, dtype=torch.float32
    ).state_dict()
    del theirs["lm_head.weight"]  # the tied embedding under its second name
    ours = load_file(converted / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert len(ours) == 20
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def test_the_config_equals_what_transformers_makes_of_the_file_but_for_what_it_gets_wrong(
    converted, tiny_gguf
):
    from transformers import AutoConfig

    theirs = AutoConfig.from_pretrained(tiny_gguf.parent, gguf_file=tiny_gguf.name).to_dict()
    ours = AutoConfig.from_pretrained(converted).to_dict()
    different = {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
    assert different <= {"_name_or_path", "architectures", "rms_norm_eps", "_model_name_or_path", "dtype"} | {
        "unk_token_id",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
    }
    assert ours["rms_norm_eps"] == 1e-5
    assert ours["rope_parameters"]["rope_theta"] == 100000.0


def test_transformers_loads_it_with_no_key_missing_or_left_over(converted):
    from transformers import AutoModelForCausalLM

    _, info = AutoModelForCausalLM.from_pretrained(converted, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]


def test_special_tokens_are_those_of_the_file_everywhere(converted):
    from transformers import AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(converted)
    generation = GenerationConfig.from_pretrained(converted)
    config = json.loads((converted / "config.json").read_text())
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
    )
    for ids in (tokenizer, generation):
        assert (ids.bos_token_id, ids.eos_token_id, ids.pad_token_id) == (1, 2, 2)
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 2, 2)
    assert tokenizer.model_max_length == 256
    assert tokenizer.clean_up_tokenization_spaces is False
    assert json.loads((converted / "generation_config.json").read_text()).keys() == {
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
    }


def test_every_digit_is_a_token_of_its_own_and_spaces_before_it_stay_together(converted):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(converted)
    pieces = [
        piece for piece, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("in   2024 , x²")
    ]
    assert pieces == ["in", "ĠĠĠ", "2", "0", "2", "4", "Ġ,", "Ġx", "Â²"]


def test_control_tokens_are_special_and_the_chat_template_comes_along(converted):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(converted)
    assert tokenizer.encode("<|im_start|>") == [1]
    assert tokenizer.decode([1, 2], skip_special_tokens=True) == ""
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "hi"


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"hello, this is not a model" * 10)
    with pytest.raises(BaseConversionError, match="cannot be read as a GGUF file"):
        convert_gguf(tmp_path / "x.gguf", tmp_path)


def test_a_gguf_cut_off_is_refused(tiny_gguf, tmp_path):
    raw = tiny_gguf.read_bytes()
    for fraction in (0.01, 0.3, 0.9):
        (tmp_path / "x.gguf").write_bytes(raw[: int(len(raw) * fraction)])
        with pytest.raises(BaseConversionError, match="cannot be read as a GGUF file"):
            convert_gguf(tmp_path / "x.gguf", tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "qwen2"}, r"general\.architecture = 'qwen2'"),
        ({"pre": "llama-bpe"}, r"tokenizer\.ggml\.pre = 'llama-bpe'"),
        ({"extra_tensor": "rope_freqs.weight"}, r"'rope_freqs\.weight' has no place"),
        ({"extra_tensor": "blk.0.attn_q_norm.weight"}, r"'blk\.0\.attn_q_norm\.weight' has no place"),
    ],
)
def test_what_cannot_be_converted_rightly_is_refused(tiny_base, tmp_path, changes, message):
    source = write_tiny_gguf(tmp_path / "other.gguf", tokenizer_of=tiny_base, **changes)
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(BaseConversionError, match=message):
        convert_gguf(source, target)


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors"])
def test_a_disk_that_takes_no_more_is_an_error_of_the_disk(tiny_gguf, tmp_path, name):
    whole, target = tmp_path / "whole", tmp_path / "target"
    whole.mkdir()
    target.mkdir()
    convert_gguf(tiny_gguf, whole)
    with (
        pytest.raises(OSError, match="File too large"),
        files_no_larger_than((whole / name).stat().st_size - 1),
    ):
        convert_gguf(tiny_gguf, target)
