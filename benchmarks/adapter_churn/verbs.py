"""The verbs that go on beside the load: load and unload, replace what is asked, list."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from benchmarks.adapter_churn.plan import Plan
from benchmarks.load.verbs import Admin


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
        self._live: dict[str, str] = {}  # by the name of an adapter that was replaced
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
                others = [spare for spare in self._spares if spare != self._live.get(name)]
                self._live[name] = self._draw.choice(others)
                self._admin.load(name, self._live[name], kind="replace")
        self._turn += 1
