"""Keeps the prefix caches of tenants apart, so that nobody learns from an answer's speed what others have asked."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from serve.access.caller import Caller


class CacheSalts:
    """One salt per tenant. The secret lives as long as this process, and so does the engine's cache."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def of(self, caller: Caller) -> str | None:
        """The salt of a caller's tenant; None for one without a key of their own, who share a cache."""
        if caller.key_id is None:
            return None
        return hmac.new(self._secret, caller.tenant.encode(), hashlib.sha256).hexdigest()
