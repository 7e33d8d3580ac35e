"""A tiny random base with a real tokenizer: for trying Hotswap, and for tests, without a download.

The answers mean nothing, but everything around them is real: transformers, PEFT and vLLM load the folder,
the tokenizer round-trips any text, the chat template renders, and greedy decoding gives varied, repeatable
tokens. Its vocabulary holds single bytes, so its answers are often not valid UTF-8 as a server decodes them.
Neither torch nor transformers is needed to make one.

tokenizer.py  vocabulary, special tokens and chat templates
dense.py      Llama and Qwen2
deepseek.py   DeepSeek-V2 and -V3
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bases.errors import BaseInvalidError
from bases.tiny.deepseek import deepseek_config, deepseek_layer_shapes
from bases.tiny.dense import Shapes, dense_config, dense_layer_shapes
from bases.tiny.tokenizer import (
    CHAT_FORMATS,
    TINY_CONTEXT_TOKENS,
    TINY_VOCAB_SIZE,
    Chat,
    special_ids,
    tokenizer_config,
    train_tokenizer,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["TINY_CONTEXT_TOKENS", "TINY_VOCAB_SIZE", "Architecture", "Chat", "make_tiny_base"]

Architecture = Literal["llama", "qwen2", "deepseek_v2", "deepseek_v3"]
_INIT_STD = 0.2  # transformers' 0.02 leaves all logits nearly alike: greedy decoding would turn on rounding


def make_tiny_base(
    path: Path,
    *,
    architecture: Architecture = "llama",
    chat: Chat = "chatml",
    seed: int = 0,
    hidden_size: int = 128,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    tied_embeddings: bool = False,
) -> Path:
    """Write a random base into the new or empty folder `path` and return it. Same arguments, same bytes.

    `seed` changes the weights alone. float32, 512 tokens of vocabulary, 512 tokens of context, intermediate
    size twice the hidden size. `chat="r1"` gives the tokens and the template of DeepSeek-R1 and its
    distillations: the model's turn begins inside <think>. vLLM on a CPU wants a head size (hidden_size / heads)
    of 32, 64, 80, 96, 112, 128 or more; the defaults give 32. The DeepSeek architectures have heads and latents
    of their own width and ignore `kv_heads`. Raises BaseInvalidError for sizes that do not divide, or a full
    folder.
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

    format_ = CHAT_FORMATS[chat]
    tokenizer = train_tokenizer(architecture, format_)
    tokenizer.save(str(path / "tokenizer.json"))
    # Every key that transformers would add on saving is here, so that a saved copy is the same base.
    config: dict[str, Any] = {
        **special_ids(tokenizer, format_),
        "dtype": "float32",
        "hidden_act": "silu",
        "hidden_size": hidden_size,
        "initializer_range": 0.02,
        "max_position_embeddings": TINY_CONTEXT_TOKENS,
        "model_type": architecture,
        "num_hidden_layers": layers,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "tie_word_embeddings": tied_embeddings,
        "use_cache": True,
        "vocab_size": tokenizer.get_vocab_size(),
    }
    if architecture in ("deepseek_v2", "deepseek_v3"):
        config |= deepseek_config(architecture, hidden_size=hidden_size, heads=heads)
    else:
        config |= dense_config(
            architecture, hidden_size=hidden_size, layers=layers, heads=heads, kv_heads=kv_heads
        )
    _write_json(path / "config.json", config)
    _write_json(path / "generation_config.json", special_ids(tokenizer, format_))
    _write_json(path / "tokenizer_config.json", tokenizer_config(architecture, format_))
    (path / "chat_template.jinja").write_text(format_.template, encoding="utf-8")
    save_file(_random_weights(config, seed), path / "model.safetensors", metadata={"format": "pt"})
    (path / "model.safetensors").chmod(0o644)  # safetensors writes 0600
    return path


def _random_weights(config: dict[str, Any], seed: int) -> dict[str, NDArray[np.float32]]:
    """Norms of one, everything else normal with `_INIT_STD`."""
    import numpy as np

    generator = np.random.default_rng(seed)
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    shapes: Shapes = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    layer_shapes = deepseek_layer_shapes if "kv_lora_rank" in config else dense_layer_shapes
    for index in range(config["num_hidden_layers"]):
        shapes |= layer_shapes(config, index)
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
