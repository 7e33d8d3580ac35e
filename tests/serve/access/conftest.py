"""A registry of keys that can fall silent, and a clock that stands still."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from adapters.errors import RegistryUnavailableError
from adapters.registry.keys import KeyRecord, KeyTable, NewKey
from adapters.registry.registry import Registry
from serve.access.api_key import make_key
from serve.access.keyring import KeyRing


class MortalTable(KeyTable):
    """The table of a registry that can fall silent; counts how often all keys were read."""

    silent = False
    reads = 0

    def read_valid(self, known_revision: int | None) -> tuple[int, list[KeyRecord] | None]:
        self._speak()
        revision, records = super().read_valid(known_revision)
        self.reads += records is not None
        return revision, records

    def revoke(self, key_id: str, *, actor: str) -> KeyRecord:
        self._speak()
        return super().revoke(key_id, actor=actor)

    def note_uses(self, uses: Mapping[str, datetime]) -> None:
        self._speak()
        super().note_uses(uses)

    def _speak(self) -> None:
        if self.silent:
            raise RegistryUnavailableError("The registry's database does not answer.")


@dataclass
class Time:
    """Both clocks of a key ring."""

    seconds: float = 1000.0
    start: datetime = field(default_factory=lambda: datetime.now(UTC))

    def clock(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return self.start + timedelta(seconds=self.seconds - 1000)


@pytest.fixture
def table(tmp_path: Path) -> Iterator[MortalTable]:
    with Registry(f"sqlite:///{tmp_path / 'registry.db'}") as registry:
        yield MortalTable(registry)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def ring(table: MortalTable, time: Time) -> KeyRing:
    return KeyRing(table, refresh_seconds=0.01, outage_seconds=60, clock=time.clock, now=time.now)


def key_of(text: str, **fields: Any) -> NewKey:
    """A key to be added, from its text."""
    from serve.access.api_key import hash_key

    _, key_id, _ = text.split("_")
    given = {"label": "test", "tenant": "acme", **fields}
    return NewKey(id=key_id, digest=hash_key(text.encode()).hex(), **given)


async def add_key(ring: KeyRing, **fields: Any) -> str:
    """Make a key and add it; returns its text."""
    text = make_key().text
    await ring.create(key_of(text, **fields), actor="test")
    return text
