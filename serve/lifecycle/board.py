"""Which version answers to which name, and the leases that keep a version loaded while somebody uses it.

Everything here is synchronous and belongs to one event loop: a lookup and the count it takes are one step, so a
swap can never fall between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from adapters.errors import AdapterNameError
from adapters.name import AdapterVersion, parse_reference
from serve.access.caller import ANYONE, Caller
from serve.engine.protocol import AdapterHandle
from serve.errors import EngineNotReadyError, UnknownModelError
from serve.lifecycle.state import AdapterState
from serve.lifecycle.version import ManagedVersion


class AdapterUnavailableError(EngineNotReadyError):
    """The adapter is registered and should be live, but could not be loaded."""

    code = "adapter_unavailable"


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to use one version (or the base) until the block ends."""

    engine_name: str  # the base's public name, or "risk@3f2a91c0"
    alias: str | None
    handle: AdapterHandle | None
    version: str | None = None  # as engine_name; None: the base
    shadow: ManagedVersion | None = None  # is asked the same beside it, and not heard


class AdapterBoard:
    """Aliases and versions of one gateway."""

    def __init__(self, base_name: str) -> None:
        self.base_name = base_name
        self._versions: dict[str, ManagedVersion] = {}
        self._aliases: dict[str, ManagedVersion] = {}

    def versions(self) -> list[ManagedVersion]:
        """All versions that are known, by name and time."""
        return sorted(self._versions.values(), key=lambda managed: (managed.version.name, managed.since))

    def aliases(self) -> dict[str, ManagedVersion]:
        """The version behind each alias."""
        return dict(self._aliases)

    def get(self, version: AdapterVersion) -> ManagedVersion | None:
        """A version, if it is known."""
        return self._versions.get(str(version))

    def behind(self, alias: str) -> ManagedVersion | None:
        """The version behind an alias."""
        return self._aliases.get(alias)

    def add(self, managed: ManagedVersion) -> None:
        """Make a version known."""
        self._versions[str(managed.version)] = managed

    def forget(self, managed: ManagedVersion) -> None:
        """Drop a version that no alias means any more."""
        if self._aliases.get(managed.version.name) is managed:
            del self._aliases[managed.version.name]
        if self._versions.get(str(managed.version)) is managed:
            del self._versions[str(managed.version)]

    def point(self, managed: ManagedVersion) -> ManagedVersion | None:
        """Move the alias to a version in one step; returns the version it left."""
        previous = self._aliases.get(managed.version.name)
        self._aliases[managed.version.name] = managed
        return previous if previous is not managed else None

    def unpoint(self, alias: str) -> ManagedVersion | None:
        """Take an alias away; returns the version it meant."""
        return self._aliases.pop(alias, None)

    @contextmanager
    def lease(
        self, reference: str | None, *, param: str, caller: Caller = ANYONE, session: str | None = None
    ) -> Iterator[Lease]:
        """Hold the base (None or its name), an alias or a pinned version for the length of the block.

        `session` is what a canary's choice may stick to. A name that the caller may not use is unknown to them.
        Raises UnknownModelError (never the base instead), AdapterUnavailableError.
        """
        del session
        if reference is None or reference == self.base_name:
            if not caller.may_use(None):
                raise _unknown(reference or self.base_name, param)
            yield Lease(self.base_name, None, None)
            return
        managed = self._find(reference, param)
        if not caller.may_use(managed.version.name):
            raise _unknown(reference, param)
        with managed.use():
            version = str(managed.version)
            yield Lease(version, managed.version.name, managed.handle, version)

    def _find(self, reference: str, param: str) -> ManagedVersion:
        try:
            wanted = parse_reference(reference)
        except AdapterNameError:
            raise _unknown(reference, param) from None
        if wanted.digest_prefix is None:
            managed = self._aliases.get(wanted.name)
        else:
            found = [m for m in self._versions.values() if wanted.matches(m.version)]
            managed = found[0] if len(found) == 1 else None
        if managed is None:
            raise _unknown(reference, param)
        if managed.state is AdapterState.FAILED and wanted.digest_prefix is None:
            raise AdapterUnavailableError(
                f"adapter {managed.version} is registered but could not be loaded: {managed.reason}"
            )
        if managed.state is not AdapterState.LIVE:
            raise _unknown(reference, param)
        return managed


def _unknown(reference: str, param: str) -> UnknownModelError:
    shown = ascii(reference if len(reference) <= 80 else reference[:77] + "...")
    return UnknownModelError(
        f"no base model, adapter or adapter version is called {shown}; GET /v1/models lists what is served",
        param=param,
    )
