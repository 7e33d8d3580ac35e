"""Every name as it is shown, made anew only where something of it has changed.

A thousand adapters are listed while requests stream on the same event loop: most of them rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from adapters.registry.records import NameRecord
from serve.lifecycle.board import AdapterBoard
from serve.lifecycle.status import AdapterStatus, describe_name

MADE_IN_A_TURN = 50  # names, about a millisecond; then whoever streams has a turn


class Listing:
    """Belongs to one event loop. `show` turns what is known of a name into what is listed."""

    def __init__(self, board: AdapterBoard, show: Callable[[AdapterStatus], Any]) -> None:
        self._board = board
        self._show = show
        self._kept: dict[str, tuple[object, orjson.Fragment]] = {}

    async def render(self, records: Iterable[NameRecord]) -> list[orjson.Fragment]:
        """JSON of each name of which something is known, in the order of `records`.

        Each is as it is at one moment, not all of them at the same one; `records` is read as they are made.
        """
        before, now, made = self._kept, dict[str, tuple[object, orjson.Fragment]](), 0
        for record in records:
            mark = self._mark(record)
            kept = before.get(record.name)
            if kept is not None and kept[0] == mark:
                now[record.name] = kept
            elif (status := describe_name(record, self._board)) is not None:
                now[record.name] = mark, orjson.Fragment(orjson.dumps(self._show(status)))
                made += 1
                if made % MADE_IN_A_TURN == 0:
                    await asyncio.sleep(0)
        self._kept = now
        return [fragment for _, fragment in now.values()]

    def _mark(self, record: NameRecord) -> object:
        """Equal to the last one while nothing that is shown has changed."""
        here = [
            (
                managed,
                managed.state,
                managed.reason,
                managed.in_flight,
                managed.since,
                managed.last_used,
                tuple(managed.phase_seconds.items()),
            )
            for managed in self._board.versions(record.name)
        ]
        return record, self._board.behind(record.name), here
