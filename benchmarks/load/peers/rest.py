"""Servers that are up beside each other, and whether one still works on what nobody waits for.

A server that cannot cancel, as a handler around `model.generate`, goes on with answers whose client has left, and
would take the processors from whoever's turn is next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from benchmarks.server import Server

LOOK_SECONDS = 0.5
MOST_SHARE = 0.2  # of one core, by all processes of a server: an engine that waits uses a few hundredths


def wait_until_at_rest(
    servers: Mapping[str, Server],
    most_seconds: float,
    say: Callable[[str], None],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until none of them computes; False where one still does after `most_seconds`, which is said.

    Of servers that were not started here nothing is known: they count as at rest.
    """
    left_seconds = most_seconds
    told = False
    while busy := _busy(servers, sleep):
        left_seconds -= LOOK_SECONDS
        if left_seconds <= 0:
            say(
                f"{', '.join(busy)} still computes after {most_seconds:g} s of waiting: it takes from the others"
            )
            return False
        if not told:
            say(f"waiting for {', '.join(busy)} to end what nobody waits for")
            told = True
    return True


def _busy(servers: Mapping[str, Server], sleep: Callable[[float], None]) -> list[str]:
    before = {name: server.cpu_seconds() for name, server in servers.items()}
    if all(used is None for used in before.values()):
        return []
    sleep(LOOK_SECONDS)
    busy = []
    for name, server in servers.items():
        first, last = before[name], server.cpu_seconds()
        if first is not None and last is not None and last[1] - first[1] > MOST_SHARE * LOOK_SECONDS:
            busy.append(name)
    return busy
