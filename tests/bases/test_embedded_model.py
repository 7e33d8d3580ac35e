"""The real embedded default, converted and asked (about a minute in all)."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bases.embedded import find_embedded_gguf
from bases.passport import read_passport
from bases.resolve import resolve_base

pytestmark = pytest.mark.slow

_CONVERT = """
import sys
from pathlib import Path
from bases.resolve import resolve_base
print(resolve_base(None, home=Path(sys.argv[1]), progress=lambda line: print(line, flush=True)).path)
"""


@pytest.fixture(scope="module")
def two_outputs(tmp_path_factory):
    """Two processes that start at once on an empty home; (home, what each printed)."""
    home = tmp_path_factory.mktemp("home")
    processes = [
        subprocess.Popen([sys.executable, "-c", _CONVERT, home], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    return home, outputs


@pytest.fixture(scope="module")
def base(two_outputs):
    return resolve_base(None, home=two_outputs[0])


def test_two_processes_that_start_at_once_convert_once(two_outputs):
    home, outputs = two_outputs
    assert sum("Dequantising 272 tensors" in output for output in outputs) == 1
    assert {output.splitlines()[-1] for output in outputs} == {
        str(home / "bases" / "smollm2-135m-instruct" / "v1")
    }


def test_it_knows_the_capital_of_france(base):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base.path)
    model = AutoModelForCausalLM.from_pretrained(base.path)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    answer = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0, prompt.input_ids.shape[1] :]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"


def test_its_weights_equal_what_transformers_reads_from_the_file_bit_for_bit(base):
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    source = find_embedded_gguf()
    theirs = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.float32
    ).state_dict()
    ours = load_file(base.path / "model.safetensors")
    assert ours.keys() | {"lm_head.weight"} == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def test_its_tokenizer_has_the_right_ends_and_splits_digits(base):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base.path)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert tokenizer.model_max_length == 8192
    assert tokenizer.tokenize("   2024") == ["ĠĠĠ", "2", "0", "2", "4"]
    text = "Grüße, 東京! \t\n  def f(x): return x²  # 100 %"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_its_passport_says_what_it_is(base, two_outputs):
    passport = read_passport(base, home=two_outputs[0])
    assert passport.name == "smollm2-135m-instruct"
    assert passport.weight_bytes == 4 * 134_515_008
    assert passport.facts.num_parameters == 134_515_008
    assert passport.facts.tied_embeddings
    assert len(passport.facts.linear_modules) == 30 * 7
    assert passport.facts.linear_modules["model.layers.29.self_attn.k_proj"] == (576, 192)
    assert not passport.reasoning
