"""A base answers the shipped prompts itself, so that what it is calibrated on is what it would say."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters.training.base_model import load_training_model
from bases.passport import read_passport
from bases.progress import Progress
from bases.resolve import ResolvedBase

# Raise when the same prompts would be answered otherwise: kept answers are then made anew.
_FORMAT = 1
_BATCH = 48
_SAY_SECONDS = 2.0
# A base of more parameters would take minutes on a CPU, and is calibrated on the reference answers.
MAX_PARAMETERS = 600_000_000


def own_answers(
    base: ResolvedBase,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    seed: int,
    home: Path,
    progress: Progress,
) -> list[list[int]]:
    """What the base says to each prompt (token ids), sampled at temperature 1 and cut at `max_tokens`.

    An answer that ended has the end token at its end. Kept in `<home>/calibration/` by the base's fingerprint, so
    that a second call costs nothing.
    """
    fingerprint = read_passport(base, home=home, progress=progress).fingerprint
    asked = json.dumps([_FORMAT, fingerprint, [list(prompt) for prompt in prompts], max_tokens, seed])
    kept = home / "calibration" / f"{hashlib.sha256(asked.encode()).hexdigest()}.json"
    if (answers := _load(kept, len(prompts))) is not None:
        return answers
    answers = _generate(base, prompts, max_tokens=max_tokens, seed=seed, progress=progress)
    _keep(answers, kept)
    return answers


def _generate(
    base: ResolvedBase, prompts: Sequence[Sequence[int]], *, max_tokens: int, seed: int, progress: Progress
) -> list[list[int]]:
    import torch

    progress(f"{base.name} answers {len(prompts)} prompts to be calibrated on")
    model = load_training_model(base, dtype=torch.float32).model.eval()
    answers: list[list[int]] = [[] for _ in prompts]
    # Prompts of about one length are answered together: little padding.
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    started = said_at = time.monotonic()
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(seed)
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            said = _answer_batch(model, [prompts[index] for index in batch], max_tokens)
            for index, answer in zip(batch, said, strict=True):
                answers[index] = answer
            if time.monotonic() - said_at > _SAY_SECONDS:
                said_at = time.monotonic()
                done = start + len(batch)
                left = (said_at - started) * (len(order) - done) / done
                progress(f"{base.name} has answered {done} of {len(order)} prompts, about {left:.0f} s left")
    return answers


def _answer_batch(model: Any, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
    """Sampled answers, each up to its end token."""
    import torch

    ends = model.generation_config.eos_token_id
    ends = set(ends) if isinstance(ends, list) else {ends}
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    answers: list[list[int]] = [[] for _ in prompts]
    going = set(range(len(prompts)))
    past = None
    while going and len(answers[min(going)]) < max_tokens:
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :],
            past_key_values=past,
            use_cache=True,
            logits_to_keep=1,
        )
        past = output.past_key_values
        ids = torch.multinomial(torch.softmax(output.logits[:, -1].float(), dim=-1), 1)
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
        for index in list(going):
            token = int(ids[index])
            answers[index].append(token)
            if token in ends:
                going.discard(index)
    return answers


def _load(path: Path, num_prompts: int) -> list[list[int]] | None:
    try:
        answers = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return answers if isinstance(answers, list) and len(answers) == num_prompts else None


def _keep(answers: list[list[int]], path: Path) -> None:
    partial = path.with_suffix(f".{os.getpid()}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text(json.dumps(answers), encoding="utf-8")
    partial.replace(path)
