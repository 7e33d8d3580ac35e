"""A Llama GGUF file as a Hugging Face checkpoint folder, in float32, without torch or transformers.

transformers opens GGUF files too, but takes six times as long and gets the tokenizer of this family wrong
(end-of-sequence id, digit splitting), so the parts are written from the GGUF metadata here. A test holds the
weights bit for bit against transformers' own reading.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bases.disk import disk_errors
from bases.errors import BaseConversionError
from bases.progress import Progress, log_progress

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFReader
    from numpy.typing import NDArray

CHECKPOINT_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
_CONTROL_TOKEN = 3  # gguf.TokenType.CONTROL
_TOP_LEVEL_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_BLOCK_TENSOR = re.compile(r"blk\.(\d+)\.([a-z_]+)\.weight")


def convert_gguf(source: Path, target: Path, *, progress: Progress = log_progress) -> None:
    """Write the Llama model in `source` into the existing, empty folder `target` (`CHECKPOINT_FILES`).

    Raises BaseConversionError if the file is not a GGUF, not a Llama, or has a tokenizer of another kind, OSError
    where `target` cannot be written.
    """
    progress(f"Reading {source.name}")
    from gguf import GGUFReader

    try:
        reader = GGUFReader(source)
    except (ValueError, IndexError, OSError) as error:
        raise BaseConversionError(
            f"{source} cannot be read as a GGUF file: {error}. Reinstall it."
        ) from error
    metadata = _Metadata(reader, source)
    metadata.require("general.architecture", "llama")
    metadata.require("tokenizer.ggml.model", "gpt2")
    metadata.require("tokenizer.ggml.pre", "smollm")
    tied = all(tensor.name != "output.weight" for tensor in reader.tensors)

    with disk_errors():
        progress("Writing the tokenizer and the configuration")
        _write_json(target / "config.json", _config(metadata, tied_embeddings=tied))
        _write_json(target / "generation_config.json", _special_ids(metadata))
        _write_json(target / "tokenizer_config.json", _tokenizer_config(metadata))
        (target / "chat_template.jinja").write_text(metadata["tokenizer.chat_template"], encoding="utf-8")
        _write_tokenizer(metadata, target / "tokenizer.json")
        _write_weights(reader, metadata, target / "model.safetensors", progress)


class _Metadata:
    """The key-value part of a GGUF file; a missing key is a BaseConversionError."""

    def __init__(self, reader: GGUFReader, source: Path) -> None:
        self._fields = reader.fields
        self._source = source

    def __getitem__(self, key: str) -> Any:
        if key not in self._fields:
            raise BaseConversionError(f"{self._source} lacks the GGUF field {key!r}: it cannot be converted.")
        return self._fields[key].contents()

    def require(self, key: str, wanted: str) -> None:
        if self[key] != wanted:
            raise BaseConversionError(
                f"{self._source} has {key} = {self[key]!r}; only {wanted!r} can be converted. "
                "Use a safetensors checkpoint of this model."
            )


def _config(metadata: _Metadata, *, tied_embeddings: bool) -> dict[str, Any]:
    hidden_size = metadata["llama.embedding_length"]
    num_heads = metadata["llama.attention.head_count"]
    # Every key that transformers would add on saving is here, so that a saved copy is the same base.
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        **_special_ids(metadata),
        "dtype": "float32",
        "head_dim": hidden_size // num_heads,
        "hidden_act": "silu",
        "hidden_size": hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": metadata["llama.feed_forward_length"],
        "max_position_embeddings": metadata["llama.context_length"],
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": num_heads,
        "num_hidden_layers": metadata["llama.block_count"],
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        "pretraining_tp": 1,
        "rms_norm_eps": _shortest_float(metadata["llama.attention.layer_norm_rms_epsilon"]),
        "rope_parameters": {
            "rope_theta": _shortest_float(metadata["llama.rope.freq_base"]),
            "rope_type": "default",
        },
        "tie_word_embeddings": tied_embeddings,
        "use_cache": True,
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
    }


def _special_ids(metadata: _Metadata) -> dict[str, int]:
    return {
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
        "eos_token_id": metadata["tokenizer.ggml.eos_token_id"],
        "pad_token_id": metadata["tokenizer.ggml.padding_token_id"],
    }


def _tokenizer_config(metadata: _Metadata) -> dict[str, Any]:
    tokens = metadata["tokenizer.ggml.tokens"]
    ids = _special_ids(metadata)
    return {
        "add_prefix_space": False,
        "bos_token": tokens[ids["bos_token_id"]],
        "clean_up_tokenization_spaces": False,
        "eos_token": tokens[ids["eos_token_id"]],
        "model_max_length": metadata["llama.context_length"],
        "pad_token": tokens[ids["pad_token_id"]],
        # Named so, transformers takes tokenizer.json as it is; a model's own class would rebuild it.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": tokens[metadata["tokenizer.ggml.unknown_token_id"]],
    }


def _write_tokenizer(metadata: _Metadata, path: Path) -> None:
    """The `smollm` tokenizer: every digit its own piece, then GPT-2's byte-level BPE."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = metadata["tokenizer.ggml.token_type"]
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    tokenizer.save(str(path), pretty=False)


def _write_weights(reader: GGUFReader, metadata: _Metadata, path: Path, progress: Progress) -> None:
    from safetensors.numpy import save_file

    progress(f"Dequantising {len(reader.tensors)} tensors to float32")
    tensors = _read_weights(reader, metadata)
    size_bytes = sum(tensor.nbytes for tensor in tensors.values())
    progress(f"Writing the weights ({size_bytes / 1e6:.0f} MB)")
    save_file(tensors, path, metadata={"format": "pt"})


def _read_weights(reader: GGUFReader, metadata: _Metadata) -> dict[str, NDArray[np.float32]]:
    """All tensors in float32 under their transformers names, in name order."""
    import numpy as np
    from gguf.quants import dequantize

    weights: dict[str, NDArray[np.float32]] = {}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        if ".attn_q." in tensor.name:
            values = _unpermute(values, metadata["llama.attention.head_count"])
        elif ".attn_k." in tensor.name:
            values = _unpermute(values, metadata["llama.attention.head_count_kv"])
        weights[_transformers_name(tensor.name)] = np.ascontiguousarray(values, dtype=np.float32)
    return {name: weights[name] for name in sorted(weights)}


def _transformers_name(name: str) -> str:
    if name in _TOP_LEVEL_NAMES:
        return _TOP_LEVEL_NAMES[name]
    match = _BLOCK_TENSOR.fullmatch(name)
    if match is None or match[2] not in _BLOCK_NAMES:
        raise BaseConversionError(
            f"GGUF tensor {name!r} has no place in a Llama model: it cannot be converted."
        )
    return f"model.layers.{match[1]}.{_BLOCK_NAMES[match[2]]}.weight"


def _unpermute(weight: NDArray[np.float32], num_heads: int) -> NDArray[np.float32]:
    """Undo the row order that llama.cpp's rotary embedding wants: within a head, pairs back to halves."""
    rows, columns = weight.shape
    pairs = weight.reshape(num_heads, rows // num_heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _shortest_float(value: float) -> float:
    """The shortest decimal that is this float32: GGUF stores 1e-05 as 9.999999747378752e-06."""
    import numpy as np

    return float(str(np.float32(value)))


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
