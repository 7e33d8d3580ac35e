"""From what an admin wrote to a folder that may be read: always below one of the allowed roots.

A refusal says the same thing whether the folder is missing, is a file or lies elsewhere, so that the answer
tells nothing about the rest of this machine. Only the admin's own text is repeated.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from adapters.errors import AdapterSourceError

MAX_SOURCE_CHARACTERS = 1024


def resolve_source(text: str, allowed_roots: Sequence[Path]) -> Path:
    """Return the real path of the folder that `text` names; raise AdapterSourceError otherwise.

    A relative path is taken below the first root. Symbolic links are followed as long as they end below a
    root. `allowed_roots` may be empty: then every source is refused.
    """
    shown = ascii(text if len(text) <= 120 else text[:117] + "...")
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
        return "is a URL; nothing is downloaded"
    if ".." in PurePosixPath(text).parts:
        return "climbs out with '..'"
    return None
