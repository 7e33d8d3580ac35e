"""Trains a LoRA on a quantised base to say what the original says: KL(original || quantised + LoRA) per token.

Only the adapter learns; text has no labels here, every position of every row counts alike. Hinton et al. 2015,
https://arxiv.org/abs/1503.02531, with temperature 1 and no other loss.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from adapters.training.fused_lora import fuse_lora
from adapters.training.schedule import RunClock, rate_factor
from bases.progress import Progress
from quantize.recovery.divergence import Head, last_states, token_divergences
from quantize.recovery.gain import row_divergences
from quantize.recovery.outcome import Distillation

_WARMUP = 0.05
_CLIP_NORM = 1.0
_SAY_SECONDS = 10.0
# The rows apart are looked at each time that so much of the run is over.
_CHECK_SHARE = 0.25
# The original's last states are kept for the next time that a row comes up, up to so many bytes.
_KEPT_STATES_BYTES = 512 * 1024**2


def distil(
    teacher: Any,
    student: Any,
    rows: Sequence[Sequence[int]],
    *,
    check_rows: Sequence[Sequence[int]] = (),
    learning_rate: float,
    budget_seconds: float,
    max_steps: int | None,
    batch_tokens: int,
    seed: int,
    progress: Progress,
    now: Callable[[], float] = time.monotonic,
) -> Distillation:
    """Train the LoRA of the PEFT model `student` (see student.put_on) against the causal model `teacher`.

    Both are on one device, in one vocabulary. `rows` are token ids of one length, read in an order that `seed`
    gives. Ends after `max_steps`, or when `budget_seconds` are over; at least one step is made. With `check_rows`
    the divergence on them is measured before, now and then, and at the end, and the best state is what stays: few
    rows read many times are learned by heart. With the steps given and time enough, the result depends on the seed
    alone.
    """
    import torch

    trained = [value for value in student.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.0)
    fuse_lora(student)
    student.eval()  # nothing here drops out, and a cache is not wanted
    reader = _Teacher(teacher)
    heads = (Head.of(teacher), Head.of(student.get_base_model()))
    clock = RunClock(max_steps or 0, budget_seconds=budget_seconds, now=now)
    clock.start()
    best = _BestState(teacher, student, trained, check_rows)
    said_at, tokens = clock.read(), 0
    losses: list[float] = []
    for batch in _batches(rows, max(1, batch_tokens // len(rows[0])), seed):
        step = len(losses)
        done = clock.progress(step) if max_steps else clock.elapsed_seconds / budget_seconds
        best.check(step, done)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * rate_factor("cosine", progress=max(done, 1e-3), warmup=_WARMUP)
        losses.append(_step(reader, student, heads, rows, batch))
        torch.nn.utils.clip_grad_norm_(trained, _CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        tokens += sum(len(rows[index]) for index in batch)
        elapsed = clock.read()
        if elapsed - said_at > _SAY_SECONDS:
            said_at = elapsed
            progress(_state(losses, elapsed, clock, max_steps))
        if clock.is_over() or len(losses) == max_steps:
            break
    best.check(len(losses), 1.0)
    best.restore()
    tenth = max(1, len(losses) // 10)
    return Distillation(
        steps=len(losses),
        tokens=tokens,
        seconds=clock.elapsed_seconds,
        divergence_at_start_nats=math.fsum(losses[:tenth]) / tenth,
        divergence_at_end_nats=math.fsum(losses[-tenth:]) / tenth,
        best_step=best.step,
        end_reason="steps" if len(losses) == max_steps else "time",
    )


class _BestState:
    """The trained parameters where the divergence on rows apart was least, and the step that it was after."""

    def __init__(self, teacher: Any, student: Any, trained: Sequence[Any], rows: Sequence[Any]) -> None:
        self._teacher, self._student, self._trained, self._rows = teacher, student, trained, rows
        self._least = math.inf
        self._values: list[Any] = []
        self._next = 0.0
        self.step = 0

    def check(self, step: int, done: float) -> None:
        """Measure when another part of the run is over; `done` is its share."""
        if done < self._next or not self._rows:
            self.step = self.step if self._rows else step
            return
        self._next = min(1.0, done + _CHECK_SHARE)
        found = row_divergences(self._teacher, self._student, self._rows)
        mean = math.fsum(found) / len(found)
        if mean < self._least:
            self._least, self.step = mean, step
            self._values = [value.detach().clone() for value in self._trained]

    def restore(self) -> None:
        """Put the best state in place."""
        import torch

        with torch.no_grad():
            for value, kept in zip(self._trained, self._values, strict=False):
                value.copy_(kept)


class _Teacher:
    """Last hidden states of the original, kept per row where there is room."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._kept: dict[int, Any] = {}
        self._bytes = 0

    def states(self, rows: Sequence[Sequence[int]], batch: Sequence[int]) -> Any:
        """[tokens of the batch, hidden], row after row."""
        import torch

        missing = [index for index in dict.fromkeys(batch) if index not in self._kept]
        fresh: dict[int, Any] = {}
        if missing:
            with torch.no_grad():
                found = last_states(self._model, [rows[index] for index in missing])
            fresh = dict(zip(missing, found.split([len(rows[index]) for index in missing]), strict=True))
        parts = [fresh[index] if index in fresh else self._kept[index] for index in batch]
        for index, states in fresh.items():
            size = states.numel() * states.element_size()
            if self._bytes + size <= _KEPT_STATES_BYTES:
                self._kept[index] = states.clone()
                self._bytes += size
        return torch.cat(parts)


def _step(
    teacher: _Teacher, student: Any, heads: tuple[Head, Head], rows: Sequence[Sequence[int]], batch: list[int]
) -> float:
    """Gradients of one step; its loss in nats per token."""
    expected = teacher.states(rows, batch)
    states = last_states(student, [rows[index] for index in batch])
    loss = token_divergences(expected, heads[0], states, heads[1]).mean()
    loss.backward()
    return float(loss.detach())


def _batches(rows: Sequence[Sequence[int]], size: int, seed: int) -> Iterator[list[int]]:
    """Indices of rows, all of them in each pass, in another order each time; without end."""
    source = random.Random(seed)  # noqa: S311 - an order, no secret
    order: list[int] = []
    while True:
        while len(order) < size:
            more = list(range(len(rows)))
            source.shuffle(more)
            order += more
        yield order[:size]
        order = order[size:]


def _state(losses: Sequence[float], elapsed: float, clock: RunClock, max_steps: int | None) -> str:
    recent = losses[-10:]
    left = (clock.budget_seconds or 0.0) - elapsed
    if max_steps:
        left = min(left, elapsed / len(losses) * (max_steps - len(losses)))
    return (
        f"Distilling: step {len(losses)}, divergence {math.fsum(recent) / len(recent):.4f} nats per token, "
        f"{max(0.0, left):.0f} s left"
    )
