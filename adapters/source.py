"""From what an admin wrote to what may be read: a folder below an allowed root, or a URL below an allowed prefix.

A refusal of a folder says the same thing whether the folder is missing, is a file or lies elsewhere, so that the
answer tells nothing about the rest of this machine. Only the admin's own text is repeated.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from adapters.errors import AdapterSourceError

MAX_SOURCE_CHARACTERS = 1024
# Stores that are read through fsspec, and the package that each needs. Plain http is not among them: whoever serves
# it can send the gateway on to any address that it reaches.
REMOTE_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub"}

_URL = re.compile(r"([a-z][a-z0-9]*)://(.*)", re.DOTALL)
_USER = re.compile(r"://[^/]*@")
_SEGMENT = re.compile(r"[A-Za-z0-9._=+@-]{1,255}")


@dataclass(frozen=True, slots=True)
class RemoteSource:
    """A place in a remote store: `s3://bucket/adapters/risk`. Holds no credentials."""

    protocol: str
    segments: tuple[str, ...]

    def is_below(self, prefix: RemoteSource) -> bool:
        """Whether it is that place or inside it. A revision (`org/risk@main`) does not count."""
        ours = [_without_revision(segment) for segment in self.segments[: len(prefix.segments)]]
        theirs = [_without_revision(segment) for segment in prefix.segments]
        return self.protocol == prefix.protocol and ours == theirs

    def __str__(self) -> str:
        return f"{self.protocol}://{'/'.join(self.segments)}"


def is_remote(text: str) -> bool:
    """Whether a source is meant as a URL."""
    return "://" in text


def parse_remote(text: str, *, protocols: Iterable[str] = tuple(REMOTE_PACKAGES)) -> RemoteSource:
    """Read a URL; raise AdapterSourceError for one that is malformed, or whose store is not among `protocols`.

    Letters, digits and `._-=+@` alone, so that no library reads a query, an escape, a user name or another URL
    out of it.
    """
    shown = _shown(text)
    match = _URL.fullmatch(text) if len(text) <= MAX_SOURCE_CHARACTERS else None
    known = sorted(protocols)
    if match is None or match[1] not in known:
        raise AdapterSourceError(
            f"Adapter source {shown} is in no store that can be read. Known are "
            f"{', '.join(f'{protocol}://' for protocol in known)}."
        )
    segments = tuple(match[2].removesuffix("/").split("/"))
    if any(_SEGMENT.fullmatch(segment) is None or set(segment) == {"."} for segment in segments):
        raise AdapterSourceError(
            f"Adapter source {shown} holds an empty part, dots alone, or a character besides letters, digits and "
            "'._-=+@'. Write it like s3://bucket/adapters/risk."
        )
    if "@" in segments[0]:
        raise AdapterSourceError(
            f"The first part of adapter source {match[1]}://... holds an '@'. Credentials do not belong into it: "
            "give them to the server's environment."
        )
    return RemoteSource(match[1], segments)


def resolve_remote(
    text: str, allowed: Sequence[RemoteSource], *, protocols: Iterable[str] = tuple(REMOTE_PACKAGES)
) -> RemoteSource:
    """The place that `text` names; raise AdapterSourceError when it is not below one of `allowed`."""
    source = parse_remote(text, protocols=protocols)
    if not any(source.is_below(prefix) for prefix in allowed):
        raise AdapterSourceError(
            f"Adapter source {_shown(text)} is not below one of the URLs that this server may read from "
            "(--allowed-sources)."
        )
    return source


def resolve_source(text: str, allowed_roots: Sequence[Path]) -> Path:
    """Return the real path of the folder that `text` names; raise AdapterSourceError otherwise.

    A relative path is taken below the first root. Symbolic links are followed as long as they end below a
    root. `allowed_roots` may be empty: then every source is refused.
    """
    shown = _shown(text)
    if not allowed_roots:
        raise AdapterSourceError(
            f"Adapter source {shown} cannot be used: no adapter folder is configured. "
            "Start the server with an adapter root."
        )
    reason = _malformed(text)
    if reason is not None:
        raise AdapterSourceError(
            f"Adapter source {shown} {reason}. Give a path below the server's adapter root, such "
            "as 'risk/v1'."
        )
    try:
        roots = [Path(os.path.realpath(root)) for root in allowed_roots]
        found = Path(os.path.realpath(roots[0] / text, strict=True))
        allowed = found.is_dir() and any(found.is_relative_to(root) for root in roots)
    except (OSError, ValueError):  # missing, a loop of links, a name too long, or no text at all
        allowed = False
    if not allowed:
        raise AdapterSourceError(
            f"There is no adapter folder {shown} below the server's adapter root. "
            "Copy the adapter there, or check the spelling."
        )
    return found


def _shown(text: str) -> str:
    """The text as messages repeat it: without what may be credentials in a URL."""
    if "://" in text:
        text = _USER.sub("://***@", text.partition("?")[0])
    return ascii(text if len(text) <= 120 else text[:117] + "...")


def _without_revision(segment: str) -> str:
    return segment.partition("@")[0]


def _malformed(text: str) -> str | None:
    if not text or text.isspace():
        return "is empty"
    if len(text) > MAX_SOURCE_CHARACTERS:
        return f"has {len(text)} characters; at most {MAX_SOURCE_CHARACTERS} are accepted"
    if not text.isprintable():
        return "holds characters that cannot be printed"
    if text.startswith("~"):
        return "starts with '~', which is not expanded"
    if "\\" in text:
        return "holds a backslash"
    if "://" in text:
        return "is a URL, not a folder"
    if ".." in PurePosixPath(text).parts:
        return "climbs out with '..'"
    return None
