"""Requests to the admin API beside a load, and what each took."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bases.errors import HotswapError
from serve.client import GatewayClient


@dataclass(frozen=True, slots=True)
class Verb:
    """One request to the admin API. Seconds count from the start of the load."""

    at_seconds: float
    kind: str  # load, replace, unload, list, models
    seconds: float  # from the request to its answer
    name: str | None = None  # of the adapter
    version: str | None = None  # that the name means from now on
    phase_seconds: dict[str, float] = field(default_factory=dict)  # as the gateway measured them
    error: str | None = None

    @property
    def end_seconds(self) -> float:
        """When the answer came."""
        return self.at_seconds + self.seconds


class Admin:
    """Sends admin requests one after the other and keeps them. What fails is kept with its reason, not raised."""

    def __init__(self, url: str, start_at_seconds: float, *, key: str | None = None) -> None:
        """`start_at_seconds`: when the load begins, by `time.monotonic`. Raises GatewayUnreachableError."""
        self.done: list[Verb] = []
        self._start_at_seconds = start_at_seconds
        self._client = GatewayClient(url, admin_key=key)

    def __enter__(self) -> Admin:
        return self

    def __exit__(self, *ended: object) -> None:
        self._client.__exit__(*ended)

    def load(self, name: str, source: str, *, kind: str = "load") -> None:
        """Load or replace. That the name meant this very version already is an error: nothing was measured."""
        self._time(kind, name, lambda: self._client.load_adapter(name, source))

    def unload(self, name: str) -> None:
        """Unload."""
        self._time("unload", name, lambda: self._client.unload_adapter(name))

    def list(self) -> None:
        """Both listings."""
        self._time("list", None, self._client.list_adapters)
        self._time("models", None, lambda: self._client.read("/v1/models"))

    def _time(self, kind: str, name: str | None, call: Callable[[], dict[str, Any]]) -> None:
        started = time.monotonic()
        error: str | None = None
        answer: dict[str, Any] = {}
        try:
            answer = call()
        except HotswapError as failure:
            error = str(failure)[:300]
        now = time.monotonic()
        version: str | None = None
        phases: dict[str, float] = {}
        if kind in ("load", "replace") and error is None:
            version, phases = answer["version"], _phases(answer["adapter"], answer["version"])
            if not answer["created"]:
                error = "this version was live already, so nothing was loaded"
        at = round(started - self._start_at_seconds, 6)
        self.done.append(Verb(at, kind, round(now - started, 6), name, version, phases, error))


def _phases(adapter: dict[str, Any], version: str) -> dict[str, float]:
    found = next((one for one in adapter["versions"] if one["version"] == version), None)
    return dict(found["phase_seconds"]) if found is not None else {}
