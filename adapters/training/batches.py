"""Which examples every step and every evaluation sees: a pure function of the seed, so that a resumed run goes on
with the same ones and several processes see together what one would see alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count, islice
from typing import Any

# Steps among which examples are sorted by length: enough for little padding, few enough for mixed steps.
_SORTED_STEPS = 32


class StepBatches:
    """A torch batch sampler: the micro-batches of this process, step after step, as lists of example indices.

    The data is one endless stream: every pass is a new permutation, and a step takes the next `batch_size`
    examples. A step is cut into `accumulation_steps * num_processes` parts with about equally many tokens; process
    p computes the parts p, p + num_processes, ... of each step.
    """

    def __init__(
        self,
        lengths_tokens: Sequence[int],
        *,
        total_steps: int,
        batch_size: int,
        accumulation_steps: int = 1,
        num_processes: int = 1,
        process_index: int = 0,
        seed: int = 0,
        similar_lengths: bool = False,
        tasks: Sequence[str] = (),
        sampling_weights: Mapping[str, float] | None = None,
    ) -> None:
        """`similar_lengths` puts examples of similar length into a step, for batches that are padded.
        `sampling_weights`, with the task of each example in `tasks`, make a task come up so many times as
        often as its share of the data. Raises ValueError when a step has fewer examples than parts."""
        parts = accumulation_steps * num_processes
        if batch_size < parts:
            raise ValueError(f"A step of {batch_size} examples cannot be cut into {parts} parts.")
        self._lengths = lengths_tokens
        self._total_steps = total_steps
        self._size = batch_size
        self._accumulation = accumulation_steps
        self._processes = num_processes
        self._process = process_index
        self._seed = seed
        self._similar = similar_lengths
        self._tasks = tasks
        self._weights = sampling_weights
        self.batch_size = max(1, batch_size // parts)  # read by accelerate; batches differ by one at most

    def end_at(self, step: int) -> None:
        """Let the run be over after `step` steps."""
        self._total_steps = step

    def __len__(self) -> int:
        return self._total_steps * self._accumulation

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps():
            yield from self.parts(step)[self._process :: self._processes]

    def steps(self) -> Iterator[list[int]]:
        """The examples of each step, before it is cut into parts."""
        stream = self._stream()
        for _ in range(self._total_steps):
            yield list(islice(stream, self._size))

    def parts(self, examples: Sequence[int]) -> list[list[int]]:
        """One step's examples in parts: the longest first, each to the part with the fewest tokens so far."""
        count = self._accumulation * self._processes
        if count == 1:
            return [list(examples)]
        parts: list[list[int]] = [[] for _ in range(count)]
        tokens = [0] * count
        for example in sorted(examples, key=lambda index: -self._lengths[index]):
            # An empty part has no tokens, so that every part gets an example before one gets a second.
            part = min(range(count), key=lambda index: tokens[index])
            parts[part].append(example)
            tokens[part] += self._lengths[example]
        return parts

    def _stream(self) -> Iterator[int]:
        if not self._weights:
            return self._passes()
        return _mixture(self._tasks, self._weights, self._seed)

    def _passes(self) -> Iterator[int]:
        everyone = range(len(self._lengths))
        if not self._similar:
            return _permutations(everyone, self._seed)
        return _similar_lengths(_permutations(everyone, self._seed), self._lengths, self._size, self._seed)


def evaluation_batches(
    lengths_tokens: Sequence[int], *, capacity_tokens: int, padded: bool = False
) -> list[list[int]]:
    """Every example once, in batches of at most `capacity_tokens`, padding counted where there is any."""
    if not padded:
        from adapters.data.packing import pack

        if not lengths_tokens:
            return []
        return pack(lengths_tokens, capacity_tokens=max(capacity_tokens, *lengths_tokens))
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths_tokens)), key=lambda i: lengths_tokens[i]):
        # Ascending, so that the newest is the longest and every row is as long as it.
        if not batches or (len(batches[-1]) + 1) * lengths_tokens[index] > capacity_tokens:
            batches.append([])
        batches[-1].append(index)
    return batches


def _permutations(members: Sequence[int], *seed: int) -> Iterator[int]:
    """`members` again and again, in another order each time."""
    epoch = 0
    while True:
        yield from (members[index] for index in _generator(*seed, epoch).permutation(len(members)).tolist())
        epoch += 1


def _similar_lengths(stream: Iterator[int], lengths: Sequence[int], size: int, seed: int) -> Iterator[int]:
    """The stream with `size` examples of similar length next to each other, the groups in random order."""
    for window in count():
        some = sorted(islice(stream, size * _SORTED_STEPS), key=lambda index: lengths[index])
        for group in _generator(seed, window, 1).permutation(_SORTED_STEPS).tolist():
            yield from some[group * size : (group + 1) * size]


def _mixture(tasks: Sequence[str], weights: Mapping[str, float], seed: int) -> Iterator[int]:
    """Passes of as many draws as there are examples, tasks in their weighted shares, each cycling on its own."""
    members: dict[str, list[int]] = {}
    for index, task in enumerate(tasks):
        members.setdefault(task, []).append(index)
    names = sorted(members)
    streams = {name: _permutations(members[name], seed, position + 1) for position, name in enumerate(names)}
    quotas = _quotas({name: len(members[name]) * weights[name] for name in names}, len(tasks))
    epoch = 0
    while True:
        order = [name for name in names for _ in range(quotas[name])]
        for index in _generator(seed, 0, epoch).permutation(len(order)).tolist():
            yield next(streams[order[index]])
        epoch += 1


def _quotas(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """`total` split in proportion to `shares`, by largest remainders; at least one each."""
    scale = total / sum(shares.values())
    quotas = {name: max(1, int(share * scale)) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: (quotas[name] - shares[name] * scale, name))
    for name in by_remainder[: max(0, total - sum(quotas.values()))]:
        quotas[name] += 1
    return quotas


def _generator(*seed: int) -> Any:
    import numpy as np

    return np.random.default_rng(seed)
