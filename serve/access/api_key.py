"""The text of an API key: `hsk_<id>_<secret>`, 256 random bits behind an id by which its digest is found.

Keys are long and random, so that a fast hash gives nothing away and no salt is needed.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass

PREFIX = b"hsk_"
_ID_BYTES = 8
_SECRET_BYTES = 32
_SHAPE = re.compile(rb"hsk_([0-9a-f]{16})_[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FreshKey:
    """A key that was just made: the only moment at which its text is known."""

    id: str
    text: str
    digest: str  # hex


def make_key() -> FreshKey:
    """A new random key."""
    key_id = secrets.token_hex(_ID_BYTES)
    text = f"hsk_{key_id}_{secrets.token_hex(_SECRET_BYTES)}"
    return FreshKey(key_id, text, hash_key(text.encode()).hex())


def hash_key(key: bytes) -> bytes:
    """Digest of a key."""
    return hashlib.sha256(key).digest()


def key_id_of(key: bytes) -> str:
    """The id in the text of a key; empty when it is none of ours."""
    found = _SHAPE.fullmatch(key)
    return found[1].decode() if found is not None else ""
