"""The keys that are good now, in memory, so that no request waits for the registry.

They are read again whenever the registry's count of changes moved, every `refresh_seconds`. While the registry does
not answer, the keys that were good last stay good for `outage_seconds`; after that none is believed, because one
may have been revoked. What is changed through this gateway counts here at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from adapters.errors import RegistryError
from adapters.registry.keys import KeyRecord, KeyTable, NewKey
from serve.access.caller import Caller, KeyLimits
from serve.registry_threads import ask_registry

logger = logging.getLogger("hotswap.keys")

_USE_RESOLUTION = timedelta(seconds=60)  # of "last used": one write for all keys in that time


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key that was not revoked when the registry was last read."""

    digest: bytes
    caller: Caller
    expires_at: datetime | None


class KeyRing:
    """Belongs to one event loop; the registry is asked in threads."""

    def __init__(
        self,
        table: KeyTable,
        *,
        refresh_seconds: float = 2.0,
        outage_seconds: float = 900.0,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._table = table
        self._refresh_seconds = refresh_seconds
        self._outage_seconds = outage_seconds
        self._clock = clock
        self._now = now
        self._keys: dict[str, KnownKey] = {}
        self._revision: int | None = None
        self._read_at: float | None = None
        self._failing = False
        self._used: dict[str, datetime] = {}
        self._unwritten: dict[str, datetime] = {}
        self._written_at = self._now()
        self._lock = asyncio.Lock()  # an older answer of the registry must not follow a newer one
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Read the keys and go on doing so. Raises RegistryError."""
        await self.refresh()
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Stop reading, and write down when keys were last used."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        with contextlib.suppress(RegistryError):
            await self._write_uses()

    def __len__(self) -> int:
        """Keys that are known here."""
        return len(self._keys)

    @property
    def is_believed(self) -> bool:
        """False when the registry has been silent for too long to say which keys are good."""
        return self._read_at is not None and self._clock() - self._read_at <= self._outage_seconds

    def find(self, key_id: str) -> KnownKey | None:
        """The key with that id, if it is good."""
        known = self._keys.get(key_id)
        if known is None or (known.expires_at is not None and known.expires_at <= self._now()):
            return None
        return known

    def note_use(self, key_id: str) -> None:
        """The key was used now; written down with the next refresh, to the minute."""
        now = self._now()
        last = self._used.get(key_id)
        if last is None or now - last >= _USE_RESOLUTION:
            self._used[key_id] = self._unwritten[key_id] = now

    async def create(self, key: NewKey, *, actor: str) -> KeyRecord:
        """Add a key; it is good at once. Raises RegistryError."""
        record = await ask_registry(self._table.add, key, actor=actor)
        async with self._lock:
            self._keys[key.id] = _known(record)
        return record

    async def revoke(self, key_id: str, *, actor: str) -> KeyRecord:
        """Take a key back for good, at once. Raises KeyNotFoundError, RegistryError."""
        record = await ask_registry(self._table.revoke, key_id, actor=actor)
        async with self._lock:
            self._keys.pop(key_id, None)
        return record

    async def get(self, key_id: str) -> KeyRecord:
        """One key as the registry has it. Raises KeyNotFoundError, RegistryError."""
        return await ask_registry(self._table.get, key_id)

    async def list_all(self) -> list[KeyRecord]:
        """All keys as the registry has them, revoked ones too. Raises RegistryError."""
        return await ask_registry(self._table.list_all)

    async def refresh(self) -> None:
        """Read the keys again if any was changed. Raises RegistryError."""
        async with self._lock:
            asked_at = self._clock()
            revision, records = await ask_registry(self._table.read_valid, self._revision)
            if records is not None:
                self._keys = _all_known(records)
                self._used = {key_id: at for key_id, at in self._used.items() if key_id in self._keys}
            self._revision = revision
            self._read_at = asked_at

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._refresh_seconds)
            try:
                await self.refresh()
                if self._unwritten and self._now() - self._written_at >= _USE_RESOLUTION:
                    await self._write_uses()
                if self._failing:
                    logger.info("the registry answers again: %d API keys", len(self._keys))
                self._failing = False
            except RegistryError as error:
                if not self._failing:
                    logger.warning(
                        "API keys cannot be read; those known stay good for %g s: %s",
                        self._outage_seconds,
                        error,
                    )
                self._failing = True
            except Exception:  # the background boundary: a bug must not freeze the keys as they are
                logger.exception("API keys cannot be read")

    async def _write_uses(self) -> None:
        uses, self._unwritten = self._unwritten, {}
        self._written_at = self._now()
        if uses:
            try:
                await ask_registry(self._table.note_uses, uses)
            except RegistryError:
                self._unwritten = {**uses, **self._unwritten}
                raise


def _all_known(records: Iterable[KeyRecord]) -> dict[str, KnownKey]:
    return {record.key.id: _known(record) for record in records}


def _known(record: KeyRecord) -> KnownKey:
    key = record.key
    caller = Caller(
        name=f"key:{key.id}",
        tenant=key.tenant,
        admin=key.admin,
        metrics=key.metrics,
        adapters=frozenset(key.adapters) if key.adapters is not None else None,
        key_id=key.id,
        weight=key.weight,
        limits=KeyLimits(
            requests_per_minute=key.requests_per_minute,
            tokens_per_minute=key.tokens_per_minute,
            concurrency=key.concurrency,
            max_tokens=key.max_tokens,
        ),
    )
    return KnownKey(bytes.fromhex(key.digest), caller, key.expires_at)
