"""The labels `adapter` and `version` of series that requests write: never more pairs than the bound.

A pair takes a place when its version is first asked, and gives it back when the version goes, or when the places
are all taken and it has been idle for longest. Whoever finds no place is counted as `other`, so that neither
clients nor a thousand adapters can make series without end.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection

BASE_LABEL = "base"
UNKNOWN_LABEL = "unknown"
OTHER_LABEL = "other"

Pair = tuple[str, str]  # (adapter, version); the version is the digest's first eight digits, "" of the base


class VersionLabels:
    """Places for `max_versions` pairs. Belongs to one event loop."""

    def __init__(
        self,
        max_versions: int,
        on_drop: Callable[[Pair], None],
        *,
        idle_seconds: float = 900.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_drop` removes the series of a pair; a pair idle for `idle_seconds` makes room for another."""
        self._max_versions = max_versions
        self._on_drop = on_drop
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._used: OrderedDict[Pair, float] = OrderedDict()  # when last used, the longest idle first

    def __len__(self) -> int:
        return len(self._used)

    def pair(self, version: str | None) -> Pair:
        """Labels of a version that holds a lease ("risk@3f2a91c0"); None is the base."""
        if version is None:
            return BASE_LABEL, ""
        name, _, digest = version.partition("@")
        pair = (name, digest)
        if pair not in self._used and len(self._used) >= self._max_versions and not self._make_room():
            return OTHER_LABEL, OTHER_LABEL
        self._used[pair] = self._clock()
        self._used.move_to_end(pair)
        return pair

    def keep(self, versions: Collection[str]) -> None:
        """Drop the pairs of all other versions."""
        for pair in [pair for pair in self._used if "@".join(pair) not in versions]:
            self._drop(pair)

    def drop(self, version: str) -> None:
        """Give the place of a version back."""
        name, _, digest = version.partition("@")
        if (name, digest) in self._used:
            self._drop((name, digest))

    def keep_adapters(self, names: Collection[str]) -> None:
        """Drop the pairs of all other adapters."""
        for pair in [pair for pair in self._used if pair[0] not in names]:
            self._drop(pair)

    def _make_room(self) -> bool:
        if not self._used:
            return False
        pair, last_used = next(iter(self._used.items()))
        if self._clock() - last_used < self._idle_seconds:
            return False
        self._drop(pair)
        return True

    def _drop(self, pair: Pair) -> None:
        del self._used[pair]
        self._on_drop(pair)
