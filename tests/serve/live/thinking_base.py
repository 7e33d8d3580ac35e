"""A tiny base that thinks aloud, and always the same: every token has one token that follows it.

Attention and MLP add nothing, so that the model's state is the embedding of the last token; the output matrix
then names its successor. An adapter adds to that state and so changes the answers.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

from adapters.tiny import make_tiny_adapter
from bases.passport import read_passport
from bases.resolve import resolve_base
from bases.tiny import make_tiny_base

THOUGHT = "The train leaves"
ANSWER = " at nine"
QUESTION = [{"role": "user", "content": "When?"}]
_END = "<|im_end|>"
_SURE = 0.08  # successors are likely, not certain: an adapter's effect is seen in their logprobs
_TEMPLATE = (
    "{% for message in messages %}"
    "{% set content = message['content'] %}"
    "{% if message['role'] == 'assistant' and '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] %}"
    "{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + content + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)


def make_thinking_home(home: Path, names: Sequence[str]) -> Path:
    """The base, whose folder is returned, and below `home` an adapter of each name, each made of other numbers."""
    base = make_thinking_base(home / "thinking")
    modules = read_passport(resolve_base(str(base), home=home), home=home).facts.linear_modules
    for seed, name in enumerate(names):
        make_tiny_adapter(
            home / "adapters" / name,
            linear_modules=modules,
            targets=("o_proj", "down_proj"),
            scale=0.3,
            seed=seed,
        )
    return base


def make_thinking_base(path: Path) -> Path:
    """Write the base into the new folder `path`; its answer to anything is THOUGHT, `</think>`, ANSWER."""
    import numpy as np
    from safetensors.numpy import load_file, save_file
    from tokenizers import Tokenizer

    make_tiny_base(path)
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "chat_template.jinja").write_text(_TEMPLATE, encoding="utf-8")
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    config["vocab_size"] = tokenizer.get_vocab_size()
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")

    said = tokenizer.encode(f"{THOUGHT}</think>{ANSWER}{_END}").ids
    chain = [*tokenizer.encode("\n").ids, *said]
    if len(set(chain)) != len(chain):
        raise ValueError(f"a token comes twice in {chain}: it would have two successors")
    generator = np.random.default_rng(0)
    embeddings = generator.standard_normal((config["vocab_size"], config["hidden_size"]), dtype=np.float32)
    successors = 0.01 * generator.standard_normal(embeddings.shape, dtype=np.float32)
    # After the end it goes round, for whoever ignores the end.
    for token, following in itertools.pairwise([*chain, chain[0]]):
        successors[following] = _SURE * embeddings[token]
    weights = load_file(path / "model.safetensors")
    for name, values in weights.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weights[name] = np.zeros_like(values)
    weights |= {"model.embed_tokens.weight": embeddings, "lm_head.weight": successors}
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return path
