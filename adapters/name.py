"""Names of adapters: the alias that clients use, and the immutable version behind it.

An alias is `risk`; a version is `risk@3f2a91c0`, the alias and the first eight hex digits of the version's
digest. The engine only ever sees version names, so its prefix cache cannot mix two versions of one alias.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from adapters.errors import AdapterNameError

SHORT_DIGEST_LENGTH = 8
# Words that are, or may become, a path segment or a special value of the admin API.
RESERVED_NAMES = frozenset(
    {"admin", "all", "base", "check", "default", "events", "latest", "none", "null", "validate"}
)

_ALIAS = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_DIGEST_PREFIX = re.compile(r"[0-9a-f]{8,64}")


def parse_alias(text: str, *, base_name: str | None = None) -> str:
    """Return `text` if it may name an adapter; raise AdapterNameError otherwise.

    `base_name` is the public name of the served base, which no adapter may take.
    """
    shown = _shown(text)
    if "@" in text:
        raise AdapterNameError(
            f"Adapter name {shown} holds '@', which separates a name from its version. "
            "Give the name alone; the version is computed from the files."
        )
    if _ALIAS.fullmatch(text) is None or ".." in text:
        raise AdapterNameError(
            f"Adapter name {shown} is not allowed. Use 1 to 64 of a-z, 0-9, '.', '_' and '-', "
            "starting with a letter or digit, without '..'."
        )
    if text in RESERVED_NAMES:
        raise AdapterNameError(f"Adapter name {shown} is a reserved word. Choose another name.")
    if base_name is not None and text == base_name.lower():
        raise AdapterNameError(f"Adapter name {shown} is the name of the base model. Choose another name.")
    return text


def parse_digest(text: str) -> str:
    """Return `text` if it is a full sha256 in lower-case hex; raise AdapterNameError otherwise."""
    if _DIGEST.fullmatch(text) is None:
        raise AdapterNameError(f"{_shown(text)} is not a digest: expected 64 lower-case hex digits.")
    return text


@dataclass(frozen=True, slots=True)
class AdapterVersion:
    """One immutable version of an adapter: `digest` is the full sha256 over what the adapter computes."""

    name: str
    digest: str

    def __post_init__(self) -> None:
        parse_alias(self.name)
        parse_digest(self.digest)

    @property
    def short(self) -> str:
        """The first eight hex digits of the digest."""
        return self.digest[:SHORT_DIGEST_LENGTH]

    def __str__(self) -> str:
        return f"{self.name}@{self.short}"


@dataclass(frozen=True, slots=True)
class AdapterReference:
    """What a client may write: an alias, or an alias pinned to a version by 8 to 64 hex digits."""

    name: str
    digest_prefix: str | None = None

    def matches(self, version: AdapterVersion) -> bool:
        """Whether `version` is one that this reference means."""
        return self.name == version.name and version.digest.startswith(self.digest_prefix or "")

    def __str__(self) -> str:
        return self.name if self.digest_prefix is None else f"{self.name}@{self.digest_prefix}"


def parse_reference(text: str) -> AdapterReference:
    """Read `risk` or `risk@3f2a91c0`; raise AdapterNameError for anything else."""
    name, at, prefix = text.partition("@")
    parse_alias(name)
    if not at:
        return AdapterReference(name)
    if _DIGEST_PREFIX.fullmatch(prefix) is None:
        raise AdapterNameError(
            f"Adapter version {_shown(text)} is malformed. "
            "After '@' come 8 to 64 lower-case hex digits, as in 'risk@3f2a91c0'."
        )
    return AdapterReference(name, prefix)


def _shown(text: str) -> str:
    """`text` quoted, escaped and short enough for a message."""
    return ascii(text if len(text) <= 80 else text[:77] + "...")
