"""What a callback remembers across a kill."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class KeepsState(Protocol):
    """A callback whose state goes into every checkpoint: numbers, texts, lists, dicts and tensors."""

    state_name: str

    def state(self) -> dict[str, Any]:
        """What has to be known to go on."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state()` gave."""
        ...
