"""A base answers the shipped prompts itself, so that what it is calibrated on is what it would say."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from adapters.training.base_model import load_training_model
from bases.disk import why_unwritten
from bases.passport import read_passport
from bases.progress import Progress
from bases.resolve import ResolvedBase

# Raise when the same prompts would be answered otherwise: kept answers are then made anew.
_FORMAT = 2
_BATCH = 48
# A base of more parameters would take minutes on a CPU, and is calibrated on the reference answers.
MAX_PARAMETERS = 600_000_000

_Answers = TypeAdapter(list[list[int]])


def own_answers(
    base: ResolvedBase,
    prompts: Sequence[Sequence[int]],
    *,
    num_tokens: int,
    max_answer_tokens: int,
    seed: int,
    home: Path,
    progress: Progress,
) -> list[list[int]]:
    """What the base says to the first prompts (token ids), sampled at temperature 1.

    As many prompts are answered, in batches, as make `num_tokens` tokens with their answers, or all. An answer is
    cut at `max_answer_tokens`; one that ended before has the end token at its end. Kept in `<home>/calibration/` by
    the base's fingerprint, so that a second call costs nothing.
    """
    fingerprint = read_passport(base, home=home, progress=progress).fingerprint
    asked = json.dumps([_FORMAT, fingerprint, [list(prompt) for prompt in prompts], max_answer_tokens, seed])
    kept = home / "calibration" / f"{hashlib.sha256(asked.encode()).hexdigest()}.json"
    answers = _load(kept)
    needed = _needed(prompts, answers, num_tokens)
    if needed is None:
        progress(f"{base.name} answers prompts to be calibrated on")
        for more in _more_answers(base, prompts, answers, max_answer_tokens, seed):
            answers = more
            _keep(answers, kept, progress)
            made = sum(map(len, answers)) + sum(map(len, prompts[: len(answers)]))
            progress(f"{base.name} has answered {len(answers)} prompts: {made:,} of {num_tokens:,} tokens")
            if (needed := _needed(prompts, answers, num_tokens)) is not None:
                break
    return answers[:needed]


def _needed(
    prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], num_tokens: int
) -> int | None:
    """How many of the first answers make `num_tokens` tokens with their prompts; None where more must be made.

    What an earlier call with more rows left behind is thus not used by one with fewer.
    """
    made = 0
    for count, (prompt, answer) in enumerate(zip(prompts, answers, strict=False), start=1):
        made += len(prompt) + len(answer)
        if made >= num_tokens:
            return count
    return len(prompts) if len(answers) >= len(prompts) else None


def _more_answers(
    base: ResolvedBase,
    prompts: Sequence[Sequence[int]],
    answers: list[list[int]],
    max_answer_tokens: int,
    seed: int,
) -> Iterator[list[list[int]]]:
    """The answers and those of one more batch, again and again; a batch does not depend on those before it."""
    import torch

    model = load_training_model(base, dtype=torch.float32).model.eval()
    for start in range(len(answers) // _BATCH * _BATCH, len(prompts), _BATCH):
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(seed + start)
            said = _answer_batch(model, prompts[start : start + _BATCH], max_answer_tokens)
        answers = [*answers[:start], *said]
        yield answers


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


def _load(path: Path) -> list[list[int]]:
    """Kept answers; none where the file is missing or broken."""
    try:
        return _Answers.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return []


def _keep(answers: list[list[int]], path: Path, progress: Progress) -> None:
    """Write them down for the next call; where that fails, this one does not."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(answers), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        progress(f"warning: the answers cannot be kept in {path.parent}: {why_unwritten(error)}")
