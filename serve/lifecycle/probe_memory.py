"""What probes learned of one engine, so that the next one asks it less. A new engine process gets a new memory."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

MAX_TEXTS = 1024
MAX_PROVEN = 4096

K = TypeVar("K")
V = TypeVar("V")

_Text = tuple[tuple[int, ...], tuple[int, ...]]  # prompt and continuation


class ProbeMemory:
    """Belongs to one event loop. Whatever is remembered is bounded; what was not used for longest goes first."""

    def __init__(self) -> None:
        self.request_ids: Iterator[int] = itertools.count(1)
        self.rounding_max_nats = 0.0  # largest difference between two askings of the base
        self.rounding_rms_nats = 0.0
        self._base: _Recent[_Text, tuple[float, ...]] = _Recent(MAX_TEXTS)
        self._proven: _Recent[tuple[str, str], None] = _Recent(MAX_PROVEN)

    def base_said(self, prompt: Sequence[int], continuation: Sequence[int]) -> tuple[float, ...] | None:
        """Log probabilities of the continuation under the base, when they were asked for before."""
        return self._base.get((tuple(prompt), tuple(continuation)))

    def keep_base(self, prompt: Sequence[int], continuation: Sequence[int], said: Sequence[float]) -> None:
        """Remember what the base said."""
        self._base.put((tuple(prompt), tuple(continuation)), tuple(said))

    def has_proven(self, digest: str, probe: str) -> bool:
        """Whether an adapter of that content passed that very probe in this engine."""
        return (digest, probe) in self._proven

    def keep_proven(self, digest: str, probe: str) -> None:
        """An adapter passed the whole of a probe."""
        self._proven.put((digest, probe), None)

    def doubt(self, digest: str, probe: str) -> None:
        """It did not: the next time it is asked everything again."""
        self._proven.drop((digest, probe))

    def note_rounding(self, max_nats: float, rms_nats: float) -> None:
        """Two askings of the base differed by so much."""
        self.rounding_max_nats = max(self.rounding_max_nats, max_nats)
        self.rounding_rms_nats = max(self.rounding_rms_nats, rms_nats)


class _Recent(Generic[K, V]):
    """A dictionary of the entries that were used last."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: OrderedDict[K, V] = OrderedDict()

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def get(self, key: K) -> V | None:
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key]

    def put(self, key: K, value: V) -> None:
        self._entries[key] = value
        self._entries.move_to_end(key)
        while len(self._entries) > self._limit:
            self._entries.popitem(last=False)

    def drop(self, key: K) -> None:
        self._entries.pop(key, None)
