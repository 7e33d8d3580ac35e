"""Looks into the adapter root now and then, and loads and promotes the new versions that it finds there.

A version is a folder ROOT/NAME/VERSION, or ROOT/NAME itself, with a configuration and weights. It is taken when two
looks have seen the same sizes and times: whoever copies into it has ended. What the registry or the audit log knows
by its digest is left alone, so that neither a restart nor a folder that is touched undoes a rollback or an unload.
Nothing is ever unloaded. By polling, because network file systems tell nobody what others wrote.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from adapters.artefact import KNOWN_NAMES, WEIGHTS_NAME
from adapters.config import CONFIG_NAME
from adapters.name import parse_alias
from adapters.registry.records import Event
from adapters.registry.registry import Registry
from adapters.source import resolve_source
from adapters.store.store import digest_of
from bases.errors import HotswapError
from serve.errors import DrainingError
from serve.http.errors import status_of
from serve.lifecycle.manager import AdapterManager
from serve.observability.events import EventLog
from serve.registry_threads import ask_registry

logger = logging.getLogger("hotswap.adapters")

WATCHER = "watcher"
MAX_FOLDERS = 100_000  # looked at in one round
MAX_PATIENCE_LOOKS = 64  # between two tries of a version that may not be at fault

Sight = tuple[tuple[str, int, int], ...]  # name, bytes and time of each known file


@dataclass(frozen=True, slots=True)
class Found:
    """A folder that may be a version."""

    name: str
    source: str  # as an admin would write it
    sight: Sight

    @property
    def complete(self) -> bool:
        """Whether what a version needs is there."""
        sizes = {name: num_bytes for name, num_bytes, _ in self.sight}
        return all(sizes.get(name, 0) > 0 for name in (CONFIG_NAME, WEIGHTS_NAME))

    @property
    def newest(self) -> int:
        """Time of the file that was written last."""
        return max(time_ns for _, _, time_ns in self.sight)


@dataclass(slots=True)
class _Retry:
    sight: Sight
    tries: int
    looks_left: int


class FolderWatcher:
    """Belongs to one event loop; the file system is looked at in threads."""

    def __init__(
        self,
        root: Path,
        adapters: AdapterManager,
        registry: Registry,
        events: EventLog,
        *,
        seconds: float,
        tick: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`seconds` lie between two looks; `tick` waits so long."""
        self._root = root
        self._adapters = adapters
        self._registry = registry
        self._events = events
        self._seconds = seconds
        self._tick = tick
        self._seen: dict[str, Sight] = {}  # source -> as it was at the last look
        self._settled: dict[str, Sight] = {}  # source -> as it was when there was nothing more to do
        self._retries: dict[str, _Retry] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look in the background from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="watch the adapter root")

    async def close(self) -> None:
        """Look no more. A verb that is running ends as a cancelled one."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def look(self) -> None:
        """One round. Raises DrainingError."""
        found = await asyncio.to_thread(find_versions, self._root)
        ripe: defaultdict[str, list[Found]] = defaultdict(list)
        for one in found:
            unchanged = self._seen.get(one.source) == one.sight
            if unchanged and one.complete and self._settled.get(one.source) != one.sight:
                ripe[one.name].append(one)
        self._seen = {one.source: one.sight for one in found}
        for memory in (self._settled, self._retries):
            for source in [source for source in memory if source not in self._seen]:
                del memory[source]
        for name, versions in ripe.items():
            try:
                await self._take_newest(versions)
            except DrainingError:
                raise
            except Exception:  # the background boundary: one bad folder must not keep the others out
                logger.exception("the adapter folder %s could not be looked into", name)

    async def _run(self) -> None:
        logger.info("watching the adapter root, every %g s", self._seconds)
        while True:
            try:
                await self.look()
            except DrainingError:
                return
            except Exception:  # the background boundary: one bad look must not be the last
                logger.exception("looking into the adapter root failed")
            await self._tick(self._seconds)

    async def _take_newest(self, versions: list[Found]) -> None:
        """Load the newest of one name that can be; the ones before it are history."""
        done = False
        for one in sorted(versions, key=lambda one: (one.newest, one.source), reverse=True):
            if done:
                logger.info(
                    "adapter folder %s is older than one that is known; it stays where it is", one.source
                )
                self._settled[one.source] = one.sight
            elif self._may_try(one):
                done = await self._take(one)
            else:
                return

    async def _take(self, one: Found) -> bool:
        """Whether it is live now, or was known before."""
        name, begun = None, False
        try:
            name = parse_alias(one.name, base_name=self._adapters.board.base_name)
            if not await ask_registry(self._is_known, one):
                begun = True
                outcome = await self._adapters.load(one.name, one.source, actor=WATCHER)
                logger.info("adapter folder %s: %s is live", one.source, outcome.managed.version)
        except DrainingError:
            raise
        except HotswapError as error:
            self._refused(one, error)
            if not begun and one.source in self._settled:  # otherwise the verb writes it down
                detail: dict[str, JsonValue] = {"source": one.source, "reason": str(error)}
                self._events.note(Event(WATCHER, "load", error.code, name, detail=detail))
            return False
        self._settled[one.source] = one.sight
        self._retries.pop(one.source, None)
        return True

    def _refused(self, one: Found, error: HotswapError) -> None:
        status = status_of(error)
        if status >= 500 or status == 409:  # not the folder's fault
            before = self._retries.get(one.source)
            tries = before.tries + 1 if before is not None and before.sight == one.sight else 1
            self._retries[one.source] = _Retry(one.sight, tries, min(2**tries, MAX_PATIENCE_LOOKS))
            log = logger.warning if tries == 1 else logger.debug
            log("adapter folder %s is tried again later: %s", one.source, error)
            return
        self._settled[one.source] = one.sight
        logger.warning("adapter folder %s is not loaded: %s", one.source, error)

    def _may_try(self, one: Found) -> bool:
        retry = self._retries.get(one.source)
        if retry is None or retry.sight != one.sight:
            return True
        retry.looks_left -= 1
        return retry.looks_left <= 0

    def _is_known(self, one: Found) -> bool:
        """Whether this content was loaded under its name before, here or by another gateway."""
        digest = digest_of(resolve_source(one.source, [self._root]))
        if digest is None:
            return False
        if any(kept.version.digest == digest for kept in self._registry.list_versions(one.name)):
            return True
        loads = self._registry.list_events(name=one.name, digest=digest, action="load")
        return any(record.event.outcome == "done" for record in loads)


def find_versions(root: Path) -> list[Found]:
    """Folders below `root` that hold a configuration, with the sizes and times of their known files."""
    found: list[Found] = []
    for name, folder in _folders(root):
        if sight := _sight(folder):
            found.append(Found(name, name, sight))
        for version, inner in _folders(folder):
            if sight := _sight(inner):
                found.append(Found(name, f"{name}/{version}", sight))
        if len(found) > MAX_FOLDERS:
            logger.error(
                "the adapter root holds more than %d versions; the rest is not looked at", MAX_FOLDERS
            )
            break
    return found


def _folders(folder: Path) -> list[tuple[str, Path]]:
    """Folders in a folder, but for hidden ones: those are being made. Links are for `resolve_source` to judge."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (entry.name, Path(entry.path))
                for entry in entries
                if not entry.name.startswith(".") and entry.is_dir()
            )
    except OSError:  # gone, or not readable: nothing is there to load
        return []


def _sight(folder: Path) -> Sight:
    """Empty where there is no configuration, or where the folder leads out of the root by a link."""
    seen = []
    for name in KNOWN_NAMES:
        with contextlib.suppress(OSError):
            status = (folder / name).lstat()
            if stat.S_ISREG(status.st_mode):
                seen.append((name, status.st_size, status.st_mtime_ns))
    return tuple(seen) if any(name == CONFIG_NAME for name, _, _ in seen) else ()
