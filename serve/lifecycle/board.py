"""Which version answers to which name, and the leases that keep a version loaded while somebody uses it.

Everything here is synchronous and belongs to one event loop: a lookup and the count it takes are one step, so a
swap can never fall between them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from adapters.errors import AdapterNameError
from adapters.name import AdapterReference, AdapterVersion, parse_reference
from serve.access.caller import ANYONE, Caller
from serve.engine.protocol import AdapterHandle
from serve.errors import EngineNotReadyError, UnknownModelError
from serve.lifecycle.state import AdapterState
from serve.lifecycle.traffic import TrafficPlan, place
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
    managed: ManagedVersion | None = None  # None: the base

    async def wait_proven(self) -> None:
        """Return at once, but for the first uses of a version that nobody has read since the start.

        Raises AdapterUnavailableError when it is not what was trained, or the engine went before that was known.
        """
        managed = self.managed
        if managed is None or managed.proven or managed.proof is None:
            return
        await asyncio.wait({managed.proof})
        self.check_usable()
        if not managed.proven:
            raise AdapterUnavailableError(
                f"adapter {managed.version} could not be read before the engine went; try again in a moment"
            )

    def check_usable(self) -> None:
        """Raises AdapterUnavailableError when the version did not come back with a new engine."""
        if self.managed is not None and self.managed.state is not AdapterState.DRAINING:
            _check_available(self.managed)


class AdapterBoard:
    """Aliases and versions of one gateway. Everything but the lists takes the same time however many there are."""

    def __init__(self, base_name: str) -> None:
        self.base_name = base_name
        self.on_first_use: Callable[[ManagedVersion], None] = _nothing
        self._names: dict[str, dict[str, ManagedVersion]] = {}  # name -> digest -> version
        self._aliases: dict[str, ManagedVersion] = {}
        self._plans: dict[str, TrafficPlan] = {}
        self._counts: Counter[AdapterState] = Counter()

    def versions(self, name: str | None = None) -> list[ManagedVersion]:
        """All versions that are known, or those of one name, by name and time."""
        if name is None:
            found = [managed for versions in self._names.values() for managed in versions.values()]
        else:
            found = list(self._names.get(name, {}).values())
        return sorted(found, key=lambda managed: (managed.version.name, managed.since))

    def names(self) -> list[str]:
        """Names of which a version is known, sorted."""
        return sorted(self._names)

    def count(self, state: AdapterState) -> int:
        """How many versions are in a state."""
        return self._counts[state]

    def aliases(self) -> dict[str, ManagedVersion]:
        """The version behind each alias."""
        return dict(self._aliases)

    def get(self, version: AdapterVersion) -> ManagedVersion | None:
        """A version, if it is known."""
        return self._names.get(version.name, {}).get(version.digest)

    def behind(self, alias: str) -> ManagedVersion | None:
        """The version behind an alias."""
        return self._aliases.get(alias)

    def traffic(self, alias: str) -> TrafficPlan | None:
        """How the requests for an alias are shared."""
        return self._plans.get(alias)

    def add(self, managed: ManagedVersion) -> None:
        """Make a version known, in place of one with the same name."""
        versions = self._names.setdefault(managed.version.name, {})
        replaced = versions.get(managed.version.digest)
        if replaced is not None:
            self._counts[replaced.state] -= 1
        versions[managed.version.digest] = managed
        self._counts[managed.state] += 1

    def stepped(self, managed: ManagedVersion, came_from: AdapterState) -> None:
        """Note that a version took a step."""
        if self.get(managed.version) is managed:
            self._counts[came_from] -= 1
            self._counts[managed.state] += 1

    def forget(self, managed: ManagedVersion) -> None:
        """Drop a version that no alias means any more."""
        name = managed.version.name
        if self._aliases.get(name) is managed:
            del self._aliases[name]
        if self.get(managed.version) is managed:
            self._counts[managed.state] -= 1
            del self._names[name][managed.version.digest]
            if not self._names[name]:
                del self._names[name]

    def point(self, managed: ManagedVersion) -> ManagedVersion | None:
        """Move the alias to a version in one step; returns the version it left."""
        previous = self._aliases.get(managed.version.name)
        self._aliases[managed.version.name] = managed
        return previous if previous is not managed else None

    def unpoint(self, alias: str) -> ManagedVersion | None:
        """Take an alias and its plan away; returns the version it meant."""
        self._plans.pop(alias, None)
        return self._aliases.pop(alias, None)

    def share(self, alias: str, plan: TrafficPlan | None) -> None:
        """Share the requests for an alias by `plan`, whose digests are whole; None: its own version has all."""
        if plan is None:
            self._plans.pop(alias, None)
        else:
            self._plans[alias] = plan

    @contextmanager
    def lease(
        self, reference: str | None, *, param: str, caller: Caller = ANYONE, session: str | None = None
    ) -> Iterator[Lease]:
        """Hold the base (None or its name), an alias or a pinned version for the length of the block.

        `session` is what a canary's choice may stick to. A name that the caller may not use is unknown to them.
        A shadow is held as well, so that whoever asks it can hold it on before the block ends.
        Raises UnknownModelError (never the base instead), AdapterUnavailableError.
        """
        if reference is None or reference == self.base_name:
            if not caller.may_use(None):
                raise _unknown(reference or self.base_name, param)
            yield Lease(self.base_name, None, None)
            return
        managed, shadow = self._find(reference, param, caller, session)
        with managed.use(), shadow.use() if shadow is not None else nullcontext():
            if not managed.proven:
                self.on_first_use(managed)
            version = str(managed.version)
            yield Lease(version, managed.version.name, managed.handle, version, shadow, managed)

    def _find(
        self, reference: str, param: str, caller: Caller, session: str | None
    ) -> tuple[ManagedVersion, ManagedVersion | None]:
        """Who answers, and who is asked beside it."""
        try:
            wanted = parse_reference(reference)
        except AdapterNameError:
            raise _unknown(reference, param) from None
        if not caller.may_use(wanted.name):
            raise _unknown(reference, param)
        if wanted.digest_prefix is not None:
            return self._pinned(wanted, reference, param), None
        stable = self._aliases.get(wanted.name)
        if stable is None:
            raise _unknown(reference, param)
        plan = self._plans.get(wanted.name)
        if plan is not None:
            ready = {
                digest: managed
                for digest, managed in self._names[wanted.name].items()
                if managed.state is AdapterState.LIVE
            }
            choice = place(
                plan, stable.version.digest, session=session, caller=caller.key_id, available=ready
            )
            answering = ready.get(choice.version)
            if answering is not None:
                return answering, ready.get(choice.shadow) if choice.shadow is not None else None
        _check_available(stable)
        return stable, None

    def _pinned(self, wanted: AdapterReference, reference: str, param: str) -> ManagedVersion:
        found = [m for m in self._names.get(wanted.name, {}).values() if wanted.matches(m.version)]
        managed = found[0] if len(found) == 1 else None
        if managed is not None and managed.returning:
            _check_available(managed)
        if managed is None or managed.state is not AdapterState.LIVE:
            raise _unknown(reference, param)
        return managed


def _nothing(managed: ManagedVersion) -> None:
    del managed


def _check_available(managed: ManagedVersion) -> None:
    """Raises AdapterUnavailableError unless a version that should answer can."""
    if managed.state is AdapterState.FAILED:
        raise AdapterUnavailableError(
            f"adapter {managed.version} is registered but could not be loaded: {managed.reason}"
        )
    if managed.state is not AdapterState.LIVE:
        raise AdapterUnavailableError(
            f"adapter {managed.version} is being loaded ({managed.state}); try again in a moment"
        )


def _unknown(reference: str, param: str) -> UnknownModelError:
    shown = ascii(reference if len(reference) <= 80 else reference[:77] + "...")
    return UnknownModelError(
        f"no base model, adapter or adapter version is called {shown}; GET /v1/models lists what is served",
        param=param,
    )
