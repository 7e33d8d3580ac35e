"""What goes on beside the load."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.adapter_churn.plan import Plan
from benchmarks.adapter_churn.processes import Look, look
from benchmarks.adapter_churn.verbs import Churn, Paced
from benchmarks.load.verbs import Admin, Verb
from benchmarks.server import Server


class Background:
    """Verbs that change adapters, listings, and looks at the server's processes, each at its own pace."""

    def __init__(self, server: Server, plan: Plan, spares: Sequence[str]) -> None:
        self.looks: list[Look] = []
        self.changes: list[Verb] = []
        self.listings: list[Verb] = []
        self._server, self._plan, self._spares = server, plan, spares

    @contextmanager
    def running(self, start_at_seconds: float) -> Iterator[list[Verb]]:
        """While the block runs; the load begins at that moment by `time.monotonic`."""

        def watch() -> None:
            self.looks.append(look(time.monotonic() - start_at_seconds, self._server.process_ids()))

        plan, url = self._plan, self._server.url
        with Admin(url, start_at_seconds) as changing, Admin(url, start_at_seconds) as listing:
            self.changes, self.listings = changing.done, listing.done
            with (
                Paced(Churn(changing, plan, self._spares).act, plan.churn_seconds),
                Paced(listing.list, plan.list_seconds),
                Paced(watch, plan.sample_seconds),
            ):
                yield self.changes

    @property
    def summary(self) -> str:
        """One line on how far it is."""
        now = self.looks[-1]
        return (
            f"gateway {now.gateway_mib:.0f} MiB, engine {now.engine_mib:.0f} MiB, {len(self.changes)} verbs, "
            f"{len(self.listings)} listings"
        )
