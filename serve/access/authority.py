"""Tells who is calling from the key that they send.

The admin key of the settings is the root. Every other key is one of the registry (`keyring.py`). Each question
costs the same whatever was sent: one digest, compared with the admin key's and with that of the key of the same
id, or with one that nothing has.
"""

from __future__ import annotations

import hmac
import secrets

from serve.access.api_key import PREFIX, hash_key, key_id_of
from serve.access.caller import ANYONE, Caller
from serve.access.keyring import KeyRing
from serve.errors import AdminDisabledError, KeysUnavailableError, MissingKeyError, ScopeError

HASH_PREFIX = "sha256:"
MAX_KEY_BYTES = 512
_RETRY_SECONDS = 5

_ROOT = Caller("admin", admin=True, metrics=True)
_LOCAL_ADMIN = Caller("local", admin=True, metrics=True)


class Authority:
    """Holds the digest of the admin key, never the key."""

    def __init__(
        self, *, key: str | None, open_without_key: bool, required: bool = False, keys: KeyRing | None = None
    ) -> None:
        """`open_without_key`: the admin API needs none while no admin key is configured.

        `required`: nobody is answered without a key. `keys`: those of the registry.
        """
        self._nothing = secrets.token_bytes(32)  # the digest that no key has
        self._digest: bytes | None = None
        if key is not None:
            hex_digest = key.removeprefix(HASH_PREFIX) if key.startswith(HASH_PREFIX) else None
            self._digest = bytes.fromhex(hex_digest) if hex_digest is not None else hash_key(key.encode())
        self._open = open_without_key
        self._required = required
        self._keys = keys

    @property
    def enabled(self) -> bool:
        """False when the admin API answers nobody but keys of the registry."""
        return self._digest is not None or self._open

    def identify(self, authorization: list[bytes]) -> Caller:
        """Who asks for an answer. Raises MissingKeyError, KeysUnavailableError."""
        caller = self._owner(authorization)
        if caller is not None:
            return caller
        if self._required or not self._is_no_key(authorization):
            raise _missing()
        return ANYONE

    def admin(self, authorization: list[bytes]) -> Caller:
        """Who uses the admin API. Raises MissingKeyError, KeysUnavailableError, AdminDisabledError, ScopeError."""
        caller = self._owner(authorization)
        if caller is not None:
            if not caller.admin:
                raise ScopeError(
                    "this key may not use the admin API; make one with `hotswap keys create --admin`",
                    caller=caller.name,
                )
            return caller
        if not self.enabled:
            raise AdminDisabledError(
                "the admin API is off: this server is reachable from other machines and has no admin key; "
                "set HOTSWAP_ADMIN_KEY"
            )
        if self._digest is None and self._is_no_key(authorization):
            return _LOCAL_ADMIN
        raise _missing()

    def metrics(self, authorization: list[bytes]) -> Caller:
        """Who reads the metrics. Raises MissingKeyError, KeysUnavailableError, ScopeError."""
        caller = self.identify(authorization)
        if self._required and not (caller.admin or caller.metrics):
            raise ScopeError(
                "this key may not read the metrics; make one with `hotswap keys create --metrics`",
                caller=caller.name,
            )
        return caller

    def _owner(self, authorization: list[bytes]) -> Caller | None:
        """Whose key was sent; None for none and for a wrong one. Raises KeysUnavailableError."""
        key = _key_of(authorization)
        key_id = key_id_of(key)
        known = self._keys.find(key_id) if self._keys is not None else None
        digest = hash_key(key)
        is_root = hmac.compare_digest(digest, self._digest or self._nothing)
        is_known = hmac.compare_digest(digest, known.digest if known is not None else self._nothing)
        if is_root:
            return _ROOT
        if self._keys is None or not key_id:
            return None
        if not self._keys.is_believed:
            raise KeysUnavailableError(
                "which API keys are good cannot be said: the registry does not answer",
                retry_after_seconds=_RETRY_SECONDS,
            )
        if known is None or not is_known:
            return None
        self._keys.note_use(key_id)
        return known.caller

    def _is_no_key(self, authorization: list[bytes]) -> bool:
        """Whether what was sent is nothing that anybody would take for a key of this gateway.

        Where there is no admin key to mistype, clients that must send something may send anything.
        """
        if not authorization:
            return True
        return (
            self._digest is None and len(authorization) == 1 and not _key_of(authorization).startswith(PREFIX)
        )


def _key_of(authorization: list[bytes]) -> bytes:
    """The key of a Bearer header; empty when there is none, or more than one."""
    given = authorization[0] if len(authorization) == 1 else b""
    scheme, _, key = given.partition(b" ")
    return key if scheme.lower() == b"bearer" and len(key) <= MAX_KEY_BYTES else b""


def _missing() -> MissingKeyError:
    return MissingKeyError("send a key of this gateway as `Authorization: Bearer KEY`")
