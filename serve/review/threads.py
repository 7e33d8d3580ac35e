"""Threads for reviewers that may take long or never come back."""

from __future__ import annotations

from serve.daemon_threads import DaemonThreads

MAX_THREADS = 16


class ReviewThreads(DaemonThreads):
    """Belongs to one event loop."""

    def __init__(self, max_threads: int = MAX_THREADS) -> None:
        super().__init__(max_threads, "review")
