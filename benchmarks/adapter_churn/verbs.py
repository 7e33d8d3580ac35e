"""The verbs that go on beside the load: load and unload, replace what is asked, list."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

import httpx

from benchmarks.adapter_churn.plan import Plan

_STATUSES = {"load": {201}, "replace": {200, 201}, "unload": {200}, "list": {200}, "models": {200}}


@dataclass(frozen=True, slots=True)
class Verb:
    """One admin request. Seconds count from the start of the load."""

    at_seconds: float
    kind: str
    seconds: float
    error: str | None = None


class Admin:
    """Sends admin requests and keeps how long each took."""

    def __init__(self, url: str, start_at_seconds: float) -> None:
        self.done: list[Verb] = []
        self._start_at_seconds = start_at_seconds
        self._client = httpx.Client(base_url=url, timeout=300.0)

    def close(self) -> None:
        """Leave no connection behind."""
        self._client.close()

    def load(self, name: str, source: str, *, kind: str = "load") -> None:
        """Load or replace."""
        self._time(kind, lambda: self._client.post("/admin/adapters", json={"name": name, "source": source}))

    def unload(self, name: str) -> None:
        """Unload."""
        self._time("unload", lambda: self._client.delete(f"/admin/adapters/{name}"))

    def list(self) -> None:
        """Both listings."""
        self._time("list", lambda: self._client.get("/admin/adapters"))
        self._time("models", lambda: self._client.get("/v1/models"))

    def _time(self, kind: str, call: Callable[[], httpx.Response]) -> None:
        started = time.monotonic()
        error = None
        try:
            answer = call()
            if answer.status_code not in _STATUSES[kind]:
                error = f"HTTP {answer.status_code}: {answer.text[:200]}"
        except httpx.HTTPError as failure:
            error = f"{type(failure).__name__}: {failure}"
        now = time.monotonic()
        self.done.append(Verb(started - self._start_at_seconds, kind, now - started, error))


class Paced:
    """In a `with` statement calls `act` every `interval_seconds`, in a thread of its own."""

    def __init__(self, act: Callable[[], None], interval_seconds: float) -> None:
        self._act = act
        self._interval_seconds = interval_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Paced:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            self._act()
            due = max(due + self._interval_seconds, time.monotonic())


class Churn:
    """One verb after the other: a spare comes, one that is asked is replaced, a spare goes, and so on."""

    def __init__(self, admin: Admin, plan: Plan, spares: Sequence[str]) -> None:
        self._admin = admin
        self._plan = plan
        self._spares = spares
        self._draw = random.Random(plan.seed)  # noqa: S311 - repeatable, nothing to guess
        self._turn = 0
        self._up: list[str] = []
        self._next = 0

    def act(self) -> None:
        """The next verb."""
        match self._turn % 4:
            case 0:
                name = f"spare-{self._next:06d}"
                self._admin.load(name, self._spares[self._next % len(self._spares)])
                self._up.append(name)
                self._next += 1
            case 2:
                self._admin.unload(self._up.pop(0))
            case _:  # another adapter's files under the name: other weights each time
                name = self._draw.choice(self._plan.asked)
                self._admin.load(name, self._draw.choice(self._spares), kind="replace")
        self._turn += 1
