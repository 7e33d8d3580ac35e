"""A small GGUF file of the embedded default's kind: Llama, Q4_1 and Q8_0 tensors, smollm tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS = 64, 96, 2, 4, 2


def write_tiny_gguf(
    path: Path,
    *,
    tokenizer_of: Path,
    architecture: str = "llama",
    pre: str = "smollm",
    extra_tensor: str | None = None,
) -> Path:
    """Write random weights and the vocabulary of the base folder `tokenizer_of`; ids as in SmolLM2."""
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    rules = json.loads((tokenizer_of / "tokenizer.json").read_text())
    vocabulary = rules["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    special = {token["content"] for token in rules["added_tokens"]}

    writer = GGUFWriter(path, architecture)
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(100000.0)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in rules["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")

    generator = np.random.default_rng(7)

    def add(name: str, shape: tuple[int, ...], kind: GGMLQuantizationType) -> None:
        values = generator.standard_normal(shape, dtype=np.float32)
        writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)

    plain, q4, q8 = GGMLQuantizationType.F32, GGMLQuantizationType.Q4_1, GGMLQuantizationType.Q8_0
    add("token_embd.weight", (len(tokens), HIDDEN), q8)
    add("output_norm.weight", (HIDDEN,), plain)
    key_rows = HIDDEN // HEADS * KV_HEADS
    for index in range(LAYERS):
        block = f"blk.{index}"
        add(f"{block}.attn_norm.weight", (HIDDEN,), plain)
        add(f"{block}.ffn_norm.weight", (HIDDEN,), plain)
        add(f"{block}.attn_q.weight", (HIDDEN, HIDDEN), q4)
        add(f"{block}.attn_k.weight", (key_rows, HIDDEN), q4)
        add(f"{block}.attn_v.weight", (key_rows, HIDDEN), q4)
        add(f"{block}.attn_output.weight", (HIDDEN, HIDDEN), q4)
        add(f"{block}.ffn_gate.weight", (INNER, HIDDEN), q4)
        add(f"{block}.ffn_up.weight", (INNER, HIDDEN), q4)
        add(f"{block}.ffn_down.weight", (HIDDEN, INNER), q4)
    if extra_tensor:
        add(extra_tensor, (HIDDEN,), plain)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
