from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bases.errors import BaseInvalidError
from bases.folder import check_folder
from bases.tiny import make_tiny_base


def digests(folder) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def greedy(folder, question: str) -> tuple[list[int], float]:
    """(24 greedy tokens, smallest gap between the best and the second logit)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    answer = model.generate(
        **prompt,
        max_new_tokens=24,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        eos_token_id=None,
    )
    best = torch.stack(answer.logits).squeeze(1).topk(2).values
    return answer.sequences[0, prompt.input_ids.shape[1] :].tolist(), float((best[:, 0] - best[:, 1]).min())


def test_the_same_arguments_give_the_same_bytes_in_another_process(tiny_base, tmp_path):
    code = "import sys, pathlib, bases.tiny; bases.tiny.make_tiny_base(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, tmp_path / "again"], check=True)
    assert digests(tmp_path / "again") == digests(tiny_base)


def test_the_seed_changes_the_weights_alone(tiny_base, tmp_path):
    other = digests(make_tiny_base(tmp_path / "other", seed=1))
    changed = {name for name, digest in digests(tiny_base).items() if other[name] != digest}
    assert changed == {"model.safetensors"}


ARCHITECTURES = ["llama", "qwen2", "deepseek_v2", "deepseek_v3"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tied_embeddings", [False, True])
def test_transformers_loads_it_with_no_key_missing_or_left_over(tmp_path, architecture, tied_embeddings):
    from transformers import AutoModelForCausalLM

    folder = make_tiny_base(tmp_path / "base", architecture=architecture, tied_embeddings=tied_embeddings)
    check_folder(folder)
    _, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("chat", ["chatml", "r1"])
def test_greedy_answers_vary_and_do_not_hang_on_rounding(tmp_path, architecture, chat):
    folder = make_tiny_base(tmp_path / "base", architecture=architecture, chat=chat)
    first, first_gap = greedy(folder, "What is the capital of France?")
    second, second_gap = greedy(folder, "Tell me a story.")
    assert first != second
    assert len(set(first)) > 12
    assert len(set(second)) > 12
    assert min(first_gap, second_gap) > 1e-3


@given(text=st.text())
def test_any_text_survives_the_tokenizer(tiny_base, text):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tiny_base / "tokenizer.json"))
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "deepseek_v3"])
@pytest.mark.parametrize("chat", ["chatml", "r1"])
@pytest.mark.parametrize(
    "text", ["Hello, world!", "  3 cats, 12.50 euros\n\n\tdef f(x):", "Grüße 東京 x²", "<|im_end|>"]
)
def test_transformers_tokenizes_as_the_file_says(tmp_path, architecture, chat, text):
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    folder = make_tiny_base(tmp_path / "base", architecture=architecture, chat=chat)
    theirs = AutoTokenizer.from_pretrained(folder)
    ids = theirs.encode(text)
    assert ids == Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    assert len(theirs) == 512
    assert theirs.decode(theirs.encode(text, add_special_tokens=False)) == text
    assert (ids[0] == theirs.bos_token_id) == (
        chat == "r1"
    )  # DeepSeek's tokenizers put it in front of raw text


def test_the_tokenizer_knows_words_and_the_ends(tiny_base):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    assert len(tokenizer) == 512
    assert len(tokenizer.encode("the adapter and the server")) < 12
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
    )


def test_the_chat_template_is_chatml(tiny_base):
    from transformers import AutoTokenizer

    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    text = AutoTokenizer.from_pretrained(tiny_base).apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    assert text == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    "sizes", [{"hidden_size": 100, "heads": 3}, {"heads": 4, "kv_heads": 3}, {"hidden_size": 12, "heads": 4}]
)
def test_sizes_that_do_not_divide_are_refused(tmp_path, sizes):
    with pytest.raises(BaseInvalidError, match="make no model"):
        make_tiny_base(tmp_path / "base", **sizes)
    assert not (tmp_path / "base").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(BaseInvalidError, match="not an empty folder"):
        make_tiny_base(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


R1_TURN = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "When?"},
    {"role": "assistant", "content": "It leaves at nine.</think>At nine."},
    {"role": "user", "content": "Sure?"},
]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_r1_template_strips_earlier_reasoning_and_opens_a_new_one(tmp_path, architecture):
    from transformers import AutoTokenizer

    folder = make_tiny_base(tmp_path / "base", architecture=architecture, chat="r1")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(R1_TURN, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<｜begin▁of▁sentence｜>Be kind.<｜User｜>When?<｜Assistant｜>At nine.<｜end▁of▁sentence｜>"
        "<｜User｜>Sure?<｜Assistant｜><think>\n"
    )
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.convert_ids_to_tokens([ids[0], *ids[-3:]]) == [
        "<｜begin▁of▁sentence｜>",
        "<｜Assistant｜>",
        "<think>",
        "Ċ",
    ]
    assert tokenizer.pad_token == tokenizer.eos_token == "<｜end▁of▁sentence｜>"


@pytest.mark.parametrize("architecture", ["deepseek_v2", "deepseek_v3"])
def test_the_experts_stand_alone_in_the_checkpoint_and_in_a_saved_copy(tmp_path, architecture):
    """As in the published models; transformers stacks them while it loads."""
    from safetensors.numpy import load_file
    from transformers import AutoModelForCausalLM

    folder = make_tiny_base(tmp_path / "base", architecture=architecture)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert tuple(model.model.layers[1].mlp.experts.gate_up_proj.shape) == (8, 128, 128)
    model.save_pretrained(tmp_path / "copy")
    ours, theirs = (load_file(place / "model.safetensors") for place in (folder, tmp_path / "copy"))
    assert ours.keys() == theirs.keys()
    assert "model.layers.1.mlp.experts.7.gate_proj.weight" in ours
    assert all((ours[name] == theirs[name]).all() for name in ours)


@pytest.mark.parametrize("architecture", ["deepseek_v2", "deepseek_v3"])
def test_every_expert_is_asked_and_not_every_token_asks_the_same(tmp_path, architecture):
    import torch
    from transformers import AutoModelForCausalLM

    folder = make_tiny_base(tmp_path / "base", architecture=architecture)
    model = AutoModelForCausalLM.from_pretrained(folder)
    chosen = []
    model.model.layers[1].mlp.gate.register_forward_hook(lambda *call: chosen.append(call[2][2]))
    with torch.no_grad():
        model(torch.arange(3, 259)[None])
    assert set(chosen[0].flatten().tolist()) == set(range(8))
