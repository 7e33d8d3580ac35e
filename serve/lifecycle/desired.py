"""What the registry wants of this gateway: read in threads, remembered, and asked about on the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from adapters.errors import AdapterConflictError, AdapterNameError
from adapters.name import AdapterVersion, parse_reference
from adapters.registry.records import NameRecord, NewVersion, VersionRecord
from adapters.registry.registry import Registry
from serve.errors import AdapterMissingError
from serve.lifecycle.traffic import TrafficPlan
from serve.observability.events import STATE_ACTION
from serve.registry_threads import ask_registry

logger = logging.getLogger("hotswap.adapters")

NOTHING_LIVE = "none"  # as `expected_live`: the name means nothing yet
_LOADS = ("load", STATE_ACTION)  # what leaves a trace of content that a name has had


def read_plan(record: NameRecord) -> TrafficPlan | None:
    """The traffic plan of a name. One that this server cannot read counts as none."""
    if record.plan is None or record.live is None:
        return None
    try:
        return TrafficPlan.from_json(record.plan)
    except ValueError:
        logger.error("the traffic plan of %s in the registry cannot be read; its alias has all", record.name)
        return None


def wanted(record: NameRecord) -> list[str]:
    """Digests that should be loaded, the alias's first: it, canaries and shadows, pins, and what was asked for."""
    found = [record.live] if record.live is not None else []
    plan = read_plan(record)
    if plan is not None:
        found += sorted(plan.versions)
    found += [kept.version.digest for kept in record.versions if kept.pinned or kept.loaded]
    return [digest for digest in dict.fromkeys(found) if record.get(digest) is not None]


def find_version(record: NameRecord, text: str) -> VersionRecord:
    """The version of that name that `text` means: `3f2a91c0`, a longer digest, or `risk@3f2a91c0`.

    Raises AdapterMissingError.
    """
    prefix = text.removeprefix(f"{record.name}@")
    try:
        reference = parse_reference(f"{record.name}@{prefix}")
    except AdapterNameError:
        found = []
    else:
        found = [kept for kept in record.versions if reference.matches(kept.version)]
    if len(found) != 1:
        shown = ascii(text if len(text) <= 80 else text[:77] + "...")
        raise AdapterMissingError(
            f"adapter {record.name!r} has no version {shown}; GET /admin/adapters/{record.name} lists them"
        )
    return found[0]


def check_expected(record: NameRecord, expected: str | None) -> None:
    """Raises AdapterConflictError unless the alias means what the caller believes ("none": nothing; None: any)."""
    if expected is None:
        return
    now = record.get(record.live)
    if (now is not None or expected != NOTHING_LIVE) and (now is None or not _names(expected, now.version)):
        shown = ascii(expected if len(expected) <= 80 else expected[:77] + "...")
        raise AdapterConflictError(
            f"Adapter {record.name!r} is {now.version if now is not None else 'not live'}, not {shown} as "
            "expected. Look at it again and repeat what is still wanted."
        )


def _names(text: str, version: AdapterVersion) -> bool:
    prefix = text.removeprefix(f"{version.name}@")
    return len(prefix) >= len(version.short) and version.digest.startswith(prefix)


async def _whole(work: Callable[[], object]) -> None:
    """Run the step after which there is no way back in a thread; a cancellation meanwhile comes too late."""
    running = asyncio.ensure_future(ask_registry(work))
    while not running.done():
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
    running.result()


class DesiredState:
    """The registry's words, as last read. Belongs to one event loop; a name is written under its lock."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._names: dict[str, NameRecord] = {}
        self._revision = -1
        # Read by a verb in another form than last time: not all of it may have been the verb's own doing.
        self._noticed: set[str] = set()

    def get(self, name: str) -> NameRecord:
        """A name as last read; of an unknown one, an empty record."""
        return self._names.get(name, NameRecord(name))

    def names(self) -> Iterable[str]:
        """Names that the registry knows."""
        return self._names.keys()

    def contents(self) -> set[str]:
        """Digests of all versions as last read."""
        return {kept.version.digest for record in self._names.values() for kept in record.versions}

    async def read_all(self) -> None:
        """Read everything. Raises RegistryError."""
        snapshot = await ask_registry(self._registry.snapshot)
        self._revision, self._names = snapshot.revision, dict(snapshot.names)

    async def read_changes(self) -> set[str]:
        """Names that are not as last read, or that verbs have read anew; `read` takes each over.

        Raises RegistryError.
        """
        noticed, self._noticed = self._noticed, set()
        try:
            if await ask_registry(self._registry.revision) == self._revision:
                return noticed
            snapshot = await ask_registry(self._registry.snapshot)
        except BaseException:
            self._noticed |= noticed
            raise
        self._revision = snapshot.revision
        return noticed | {
            name
            for name in self._names.keys() | snapshot.names.keys()
            if self._names.get(name) != snapshot.names.get(name)
        }

    async def read(self, name: str) -> NameRecord:
        """Read one name again. Raises RegistryError."""
        record = await ask_registry(self._registry.name, name)
        if record != self.get(name):
            self._noticed.add(name)
        if record.known:
            self._names[name] = record
        else:
            self._names.pop(name, None)
        return record

    async def add(self, new: NewVersion) -> NameRecord:
        """Make a version known. Raises AdapterConflictError, RegistryError."""
        await ask_registry(self._registry.add_version, new)
        return await self.read(new.version.name)

    async def move(self, version: AdapterVersion, *, left: str | None) -> NameRecord:
        """Let the alias mean `version` and no longer `left`; its traffic plan ends. As Registry.set_alias."""
        await _whole(lambda: self._registry.set_alias(version, expected_digest=left))
        return await self.read(version.name)

    async def pin(self, version: AdapterVersion, pinned: bool) -> NameRecord:
        """Raises AdapterNotFoundError, RegistryError."""
        await ask_registry(self._registry.set_pinned, version, pinned)
        return await self.read(version.name)

    async def keep_loaded(self, version: AdapterVersion, loaded: bool) -> NameRecord:
        """Raises AdapterNotFoundError, RegistryError."""
        await ask_registry(self._registry.set_loaded, version, loaded)
        return await self.read(version.name)

    async def plan(self, name: str, plan: TrafficPlan | None) -> NameRecord:
        """Keep how the requests for a name are shared. Raises RegistryError."""
        await ask_registry(self._registry.set_plan, name, plan.to_json() if plan is not None else None)
        return await self.read(name)

    async def forget(self, name: str) -> list[AdapterVersion]:
        """Drop all that is desired of a name; returns the versions that there were. Raises RegistryError."""
        gone = await ask_registry(self._registry.forget_name, name)
        self._names.pop(name, None)
        return gone

    async def remove(self, version: AdapterVersion) -> bool:
        """Forget one version. Raises AdapterConflictError while it is live, RegistryError."""
        removed = await ask_registry(self._registry.remove_version, version)
        await self.read(version.name)
        return removed

    def holds_content(self, digest: str) -> bool:
        """Whether any name has a version of that content. Blocks: for threads. Raises RegistryError."""
        return self._registry.holds_digest(digest)

    def held_content(self, digest: str) -> bool:
        """Whether any name has had a version of that content, or has. Blocks: for threads. Raises RegistryError."""
        traces = (self._registry.list_events(digest=digest, action=action, limit=1) for action in _LOADS)
        return any(traces) or self.holds_content(digest)
