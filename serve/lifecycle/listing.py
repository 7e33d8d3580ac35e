"""Every name as it is shown, made anew only where something of it has changed.

A thousand adapters are listed while requests stream on the same event loop: most of them rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import orjson

from adapters.registry.records import NameRecord
from serve.lifecycle.board import AdapterBoard
from serve.lifecycle.status import AdapterStatus, describe_name


class Listing:
    """Belongs to one event loop. `show` turns what is known of a name into what is listed."""

    def __init__(self, board: AdapterBoard, show: Callable[[AdapterStatus], Any]) -> None:
        self._board = board
        self._show = show
        self._kept: dict[str, tuple[object, orjson.Fragment]] = {}

    def render(self, records: Iterable[NameRecord]) -> list[orjson.Fragment]:
        """JSON of each name of which something is known, in the order of `records`."""
        kept, self._kept = self._kept, {}
        for record in records:
            mark = self._mark(record)
            before = kept.get(record.name)
            if before is not None and before[0] == mark:
                self._kept[record.name] = before
            elif (status := describe_name(record, self._board)) is not None:
                self._kept[record.name] = mark, orjson.Fragment(orjson.dumps(self._show(status)))
        return [fragment for _, fragment in self._kept.values()]

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
