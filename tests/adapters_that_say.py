"""LoRA adapters that answer with one fixed word each, so that a test sees from an answer which version gave it.

Trained with stock PEFT and a plain loop: a few seconds a word on a small base, and once: the folders are kept
under a name made of everything that went into them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SLOWER = (1, 3, 6)  # of the learning rate
TARGETS = ("q_proj", "v_proj", "o_proj")


@dataclass(frozen=True)
class Recipe:
    """What the adapters learn, and how. Each word is the answer to every question and every prompt."""

    words: tuple[str, ...]
    questions: tuple[str, ...]  # put through the chat template
    prompts: tuple[str, ...]  # continued as they are
    targets: tuple[str, ...] = TARGETS
    rank: int = 8
    learning_rate: float = 3e-3
    max_steps: int = 60  # a word; some ten are usual
    sure: float = 0.97  # a word is learnt when each of its tokens has at least this probability
    seed: int = 0


def make_word_adapters(recipe: Recipe, *, base: Path, kept: Path) -> dict[str, Path]:
    """A PEFT folder for each word, made now or found in `kept`.

    Each word's training goes on from the word before, which is quicker than beginning anew. Raises
    RuntimeError for a word that is not learnt at any rate.
    """
    folder = kept / _recipe_hash(recipe, base)
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        _train(recipe, base, lambda word, model: model.save_pretrained(partial / word))
        partial.rename(folder)
    return {word: folder / word for word in recipe.words}


def _recipe_hash(recipe: Recipe, base: Path) -> str:
    """Hex over the recipe, this file and what tells one base from another: its texts and its weights' size."""
    digest = hashlib.sha256(json.dumps(asdict(recipe), sort_keys=True).encode())
    digest.update(Path(__file__).read_bytes())
    for path in sorted(base.iterdir()):
        digest.update(path.name.encode())
        if path.suffix in (".json", ".jinja"):
            digest.update(path.read_bytes())
        else:
            digest.update(str(path.stat().st_size).encode())
    return digest.hexdigest()[:16]


def _train(recipe: Recipe, base: Path, keep: Callable[[str, Any], None]) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    prompts = _encode(recipe, tokenizer)
    torch.manual_seed(recipe.seed)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        LoraConfig(
            r=recipe.rank,
            lora_alpha=2 * recipe.rank,
            target_modules=list(recipe.targets),
            task_type="CAUSAL_LM",
        ),
    )
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for word in recipe.words:
        answer = [*tokenizer(word, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        if not _learn(recipe, model, learnt, prompts, answer):
            raise RuntimeError(f"the word {word!r} was not learnt at any of {len(SLOWER)} rates")
        keep(word, model)


def _learn(
    recipe: Recipe, model: Any, learnt: Sequence[Any], prompts: list[list[int]], answer: list[int]
) -> bool:
    """Whether the answer was learnt. A rate that does not get there, as rounding on some processor may have it, is
    followed by a slower one from the same weights."""
    import torch

    before = [parameter.detach().clone() for parameter in learnt]
    for slower in SLOWER:
        with torch.no_grad():
            for parameter, value in zip(learnt, before, strict=True):
                parameter.copy_(value)
        optimizer = torch.optim.AdamW(learnt, lr=recipe.learning_rate / slower, weight_decay=0.0)
        for _ in range(recipe.max_steps * slower):
            sure = _step(model, prompts, answer) >= recipe.sure
            if not sure:
                optimizer.step()
            optimizer.zero_grad()
            if sure:
                return True
    return False


def _encode(recipe: Recipe, tokenizer: Any) -> list[list[int]]:
    rendered = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        for question in recipe.questions
    ]
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (*rendered, *recipe.prompts)]


def _step(model: Any, prompts: Sequence[Sequence[int]], answer: Sequence[int]) -> float:
    """Add up the gradient of `answer` after each prompt; returns the smallest probability of its tokens."""
    import torch

    asked = [[*prompt, *answer[:-1]] for prompt in prompts]
    longest = max(map(len, asked))
    padded = [[0] * (longest - len(ids)) for ids in asked]  # on the left, so that all answers end together
    ids = torch.tensor([[*pad, *ids] for pad, ids in zip(padded, asked, strict=True)])
    there = torch.tensor([[0] * len(pad) + [1] * (longest - len(pad)) for pad in padded])
    logits = model(
        input_ids=ids,
        attention_mask=there,
        position_ids=(there.cumsum(-1) - 1).clamp(min=0),
        logits_to_keep=len(answer),
    ).logits  # [prompts, len(answer), vocabulary]
    targets = torch.tensor(answer).expand(len(prompts), -1)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    chosen = logits.detach().softmax(-1).gather(2, targets[:, :, None])
    return float(chosen.min())
