"""Fields that clients always send and that cannot be honoured: taken at the value that asks for nothing."""

from __future__ import annotations

from pydantic import BeforeValidator


def only(neutral: object, reason: str) -> BeforeValidator:
    """Let null and `neutral` through; any other value is refused with the reason."""

    def check(value: object) -> object:
        same_kind = isinstance(value, bool) == isinstance(neutral, bool)  # 0 == False
        if value is None or (same_kind and value == neutral):
            return value
        raise ValueError(reason)

    return BeforeValidator(check)
