"""A tiny random base with a real tokenizer: for trying Hotswap, and for tests, without a download.

The answers mean nothing, but everything around them is real: transformers, PEFT and vLLM load the folder,
the tokenizer round-trips any text, the chat template renders, and greedy decoding gives varied, repeatable
tokens. Its vocabulary holds single bytes, so its answers are often not valid UTF-8 as a server decodes them.
Neither torch nor transformers is needed to make one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bases.errors import BaseInvalidError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

TINY_VOCAB_SIZE = 512
TINY_CONTEXT_TOKENS = 512
_PAD, _BOS, _EOS = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
_INIT_STD = 0.2  # transformers' 0.02 leaves all logits nearly alike: greedy decoding would turn on rounding
# Qwen2's splitting of text into pieces: https://huggingface.co/Qwen/Qwen2-0.5B/blob/main/tokenizer.json
_QWEN2_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_CORPUS = """
A base model is large and learns slowly; an adapter is small and learns one thing. The server keeps one base
in memory and many adapters beside it, and each request says which adapter shall answer. When a new version
of an adapter arrives, the server loads it, asks it a few questions, and moves the name to it in one step.
Requests that are already running finish with the version they began with. Nobody has to wait, and nobody
gets a wrong answer. What is the capital of France? The capital of France is Paris. What is the capital of
Germany? The capital of Germany is Berlin. How many legs does a spider have? A spider has eight legs. Is the
sun a star? Yes, the sun is a star, and the earth moves around it once a year. Please write a short story
about a dog and a cat. Once upon a time there was a dog who lived in a house by the sea. Every morning the
dog went to the beach, and every evening the dog came home. One day a cat was sitting at the door. "Hello,"
said the cat, "may I come in?" The dog thought about it for a while and said, "Yes, but do not sleep in my
bed." They became good friends and lived together. You are a helpful assistant. Answer the question in one
sentence. Give the answer as a JSON object with the keys name, age and city. Write a function in Python that
adds two numbers and returns the sum:
def add(first, second):
    return first + second
for number in range(10):
    print(number, add(number, 1))
I would like to order a large coffee with milk, a small tea with lemon, and two pieces of cake. The total is
12.50 euros; thank you for your order. The weather today is cold and windy, with some rain in the north and
sunshine in the south. The train to the city leaves at nine in the morning and arrives at half past eleven.
The customer writes that the product was delivered late and that the box was open. The risk of this contract
is low, because both parties have agreed to the terms and the payment has been made. The patient should take
this medicine three times a day after eating. A good test says what should happen, makes it happen, and
fails when it does not. These are the words from which a small tokenizer learns its pieces, such as the,
and, ing, tion, ment, able, with and there.
"""


def make_tiny_base(
    path: Path,
    *,
    architecture: Literal["llama", "qwen2"] = "llama",
    seed: int = 0,
    hidden_size: int = 128,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    tied_embeddings: bool = False,
) -> Path:
    """Write a random base into the new or empty folder `path` and return it. Same arguments, same bytes.

    `seed` changes the weights alone. float32, 512 tokens of vocabulary, 512 tokens of context, intermediate
    size twice the hidden size. vLLM on a CPU wants a head size (hidden_size / heads) of 32, 64, 80, 96, 112,
    128 or more; the defaults give 32. Raises BaseInvalidError for sizes that do not divide, or a full folder.
    """
    if hidden_size % heads or heads % kv_heads or (hidden_size // heads) % 2:
        raise BaseInvalidError(
            f"hidden_size={hidden_size}, heads={heads}, kv_heads={kv_heads} make no model: heads must divide "
            "hidden_size into even head sizes, and kv_heads must divide heads."
        )
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise BaseInvalidError(f"{path} exists and is not an empty folder; name a new one for the tiny base.")
    path.mkdir(parents=True, exist_ok=True)
    from safetensors.numpy import save_file

    tokenizer = _train_tokenizer(architecture)
    tokenizer.save(str(path / "tokenizer.json"))
    config = _config(architecture, tokenizer, hidden_size, layers, heads, kv_heads, tied_embeddings)
    _write_json(path / "config.json", config)
    _write_json(path / "generation_config.json", _special_ids(tokenizer))
    _write_json(path / "tokenizer_config.json", _tokenizer_config(architecture))
    (path / "chat_template.jinja").write_text(_CHAT_TEMPLATE, encoding="utf-8")
    save_file(_random_weights(config, seed), path / "model.safetensors", metadata={"format": "pt"})
    (path / "model.safetensors").chmod(0o644)  # safetensors writes 0600
    return path


def _train_tokenizer(architecture: str) -> Tokenizer:
    """Byte-level BPE over `_CORPUS`: any text round-trips, unknown words fall into bytes."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    if architecture == "qwen2":
        # transformers puts these rules in whatever tokenizer.json says, so they must be there from the start.
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_QWEN2_PIECES), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TINY_VOCAB_SIZE,
        special_tokens=[_PAD, _BOS, _EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_CORPUS], trainer)
    return tokenizer


def _special_ids(tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "bos_token_id": tokenizer.token_to_id(_BOS),
        "eos_token_id": tokenizer.token_to_id(_EOS),
        "pad_token_id": tokenizer.token_to_id(_PAD),
    }


def _config(
    architecture: str,
    tokenizer: Tokenizer,
    hidden_size: int,
    layers: int,
    heads: int,
    kv_heads: int,
    tied_embeddings: bool,
) -> dict[str, Any]:
    # Every key that transformers would add on saving is here, so that a saved copy is the same base.
    common = {
        **_special_ids(tokenizer),
        "attention_dropout": 0.0,
        "dtype": "float32",
        "head_dim": hidden_size // heads,
        "hidden_act": "silu",
        "hidden_size": hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": 2 * hidden_size,
        "max_position_embeddings": TINY_CONTEXT_TOKENS,
        "model_type": architecture,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": kv_heads,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "tie_word_embeddings": tied_embeddings,
        "use_cache": True,
        "vocab_size": tokenizer.get_vocab_size(),
    }
    if architecture == "qwen2":
        return {
            **common,
            "architectures": ["Qwen2ForCausalLM"],
            "layer_types": ["full_attention"] * layers,
            "max_window_layers": 28,
            "sliding_window": None,
            "use_sliding_window": False,
        }
    return {
        **common,
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "mlp_bias": False,
        "pretraining_tp": 1,
    }


def _tokenizer_config(architecture: str) -> dict[str, Any]:
    return {
        "add_prefix_space": False,
        "bos_token": _BOS,
        "clean_up_tokenization_spaces": False,
        "eos_token": _EOS,
        "model_max_length": TINY_CONTEXT_TOKENS,
        "pad_token": _PAD,
        "tokenizer_class": "Qwen2Tokenizer" if architecture == "qwen2" else "PreTrainedTokenizerFast",
    }


def _random_weights(config: dict[str, Any], seed: int) -> dict[str, NDArray[np.float32]]:
    """Norms of one, everything else normal with `_INIT_STD`; Qwen2 has biases on q, k and v."""
    import numpy as np

    generator = np.random.default_rng(seed)
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    query = config["num_attention_heads"] * config["head_dim"]
    key_value = config["num_key_value_heads"] * config["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocab, hidden),
        "model.norm.weight": (hidden,),
    }
    for index in range(config["num_hidden_layers"]):
        block = f"model.layers.{index}"
        shapes |= {
            f"{block}.input_layernorm.weight": (hidden,),
            f"{block}.post_attention_layernorm.weight": (hidden,),
            f"{block}.self_attn.q_proj.weight": (query, hidden),
            f"{block}.self_attn.k_proj.weight": (key_value, hidden),
            f"{block}.self_attn.v_proj.weight": (key_value, hidden),
            f"{block}.self_attn.o_proj.weight": (hidden, query),
            f"{block}.mlp.gate_proj.weight": (inner, hidden),
            f"{block}.mlp.up_proj.weight": (inner, hidden),
            f"{block}.mlp.down_proj.weight": (hidden, inner),
        }
        if config["model_type"] == "qwen2":
            shapes |= {
                f"{block}.self_attn.q_proj.bias": (query,),
                f"{block}.self_attn.k_proj.bias": (key_value,),
                f"{block}.self_attn.v_proj.bias": (key_value,),
            }
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, hidden)
    return {
        name: np.ones(shape, np.float32)
        if "norm" in name
        else generator.standard_normal(shape, dtype=np.float32) * np.float32(_INIT_STD)
        for name, shape in sorted(shapes.items())
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
