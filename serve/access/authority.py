"""Tells who is calling from the key that they send."""

from __future__ import annotations

import hashlib
import hmac

from serve.access.caller import ANYONE, Caller
from serve.errors import AdminDisabledError, MissingKeyError

HASH_PREFIX = "sha256:"
MAX_KEY_BYTES = 512


def hash_key(key: bytes) -> bytes:
    """Digest of a key. Keys are long and random, so that a fast hash gives nothing away."""
    return hashlib.sha256(key).digest()


class Authority:
    """Holds the digest of the admin key, never the key."""

    def __init__(self, *, key: str | None, open_without_key: bool) -> None:
        self._digest: bytes | None = None
        if key is not None:
            hex_digest = key.removeprefix(HASH_PREFIX) if key.startswith(HASH_PREFIX) else None
            self._digest = bytes.fromhex(hex_digest) if hex_digest is not None else hash_key(key.encode())
        self._open = open_without_key

    @property
    def enabled(self) -> bool:
        """False when the admin API answers nobody."""
        return self._digest is not None or self._open

    def identify(self, authorization: list[bytes]) -> Caller:
        """Who asks for an answer."""
        del authorization
        return ANYONE

    def admin(self, authorization: list[bytes]) -> Caller:
        """Who uses the admin API. Raises MissingKeyError, AdminDisabledError."""
        if self._digest is None:
            if not self._open:
                raise AdminDisabledError(
                    "the admin API is off: this server is reachable from other machines and has no admin key; "
                    "set HOTSWAP_ADMIN_KEY"
                )
            return Caller("local", admin=True)
        given = authorization[0] if len(authorization) == 1 else b""
        scheme, _, key = given.partition(b" ")
        presented = key if scheme.lower() == b"bearer" and len(key) <= MAX_KEY_BYTES else b""
        if not hmac.compare_digest(hash_key(presented), self._digest):
            raise MissingKeyError("send the admin key as `Authorization: Bearer KEY`")
        return Caller("admin", admin=True)
