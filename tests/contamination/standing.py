"""What a server should have of one name, and what each verb makes of that: the rules of the docs as data.

The reference for whoever moves names in tests: it knows nothing of how the server does it. Versions are written as
the server names them, `risk@3f2a91c0`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

NOTHING = "404"  # what "answers" while there is no such name

Versions = frozenset[str]
_NONE: Versions = frozenset()


@dataclass(frozen=True)
class Standing:
    """One name. A verb on it gives another standing, or None where the server has to refuse it."""

    known: Versions = _NONE  # in the registry, to go back to
    live: str | None = None
    previous: str | None = None
    loaded: Versions = _NONE  # asked for without the alias, until the alias comes and goes
    pinned: Versions = _NONE
    shares: frozenset[tuple[str, float]] = field(default=frozenset())  # canaries
    shadows: Versions = _NONE

    @property
    def canaries(self) -> Versions:
        """Versions with a share of the alias's requests."""
        return frozenset(version for version, _ in self.shares)

    @property
    def wanted(self) -> Versions:
        """Versions that the engine should hold; each answers to its own name."""
        stable = frozenset({self.live}) if self.live is not None else _NONE
        return stable | self.canaries | self.shadows | self.pinned | self.loaded

    @property
    def answerers(self) -> Versions:
        """Who may answer to the alias."""
        if self.live is None:
            return frozenset({NOTHING})
        taken = sum(share for _, share in self.shares)
        return self.canaries | (frozenset({self.live}) if taken < 1 else _NONE)

    def load(self, version: str, *, promote: bool = True) -> Standing:
        """A version that passes its checks and its probe."""
        known = replace(self, known=self.known | {version})
        if promote:
            return known.move(version)
        return known if version == self.live else replace(known, loaded=self.loaded | {version})

    def move(self, version: str) -> Standing:
        """The alias comes to mean a known version; what was shared beside it ends."""
        if version == self.live:
            return self
        return replace(
            self,
            live=version,
            previous=self.live,
            loaded=self.loaded - {version},
            shares=frozenset(),
            shadows=_NONE,
        )

    def promote(self, version: str) -> Standing | None:
        """Only a known version."""
        return self.move(version) if version in self.known else None

    def rollback(self) -> Standing | None:
        """Only where there is something to go back to."""
        if self.live is None or self.previous not in self.known or self.previous is None:
            return None
        return self.move(self.previous)

    def share(self, shares: dict[str, float], shadows: Versions = _NONE) -> Standing | None:
        """Only beside a live version, between known ones."""
        named = frozenset(shares) | shadows
        if self.live is None or self.live in named or not named <= self.known:
            return None
        return replace(self, shares=frozenset(shares.items()), shadows=shadows)

    def clear(self) -> Standing | None:
        """Only of a known name."""
        return replace(self, shares=frozenset(), shadows=_NONE) if self.known else None

    def pin(self, version: str) -> Standing | None:
        """Only a known version."""
        return replace(self, pinned=self.pinned | {version}) if version in self.known else None

    def unpin(self, version: str) -> Standing | None:
        """Only a known version, pinned or not."""
        return replace(self, pinned=self.pinned - {version}) if version in self.known else None

    def prefetch(self, version: str) -> Standing | None:
        """Only a known version."""
        if version not in self.known:
            return None
        return self if version == self.live else replace(self, loaded=self.loaded | {version})

    def unload_version(self, version: str) -> Standing | None:
        """Only a known version that nothing but its loading holds."""
        held = self.canaries | self.shadows | self.pinned | frozenset({self.live or ""})
        if version not in self.known or version in held:
            return None
        return replace(self, loaded=self.loaded - {version})

    def unload(self) -> Standing | None:
        """Only of a known name; nothing of it is left."""
        return Standing() if self.known else None
