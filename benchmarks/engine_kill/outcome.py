"""What became of the requests of one trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.load.client.record import Record

REFUSED_STATUS = 503


@dataclass(frozen=True, slots=True)
class Outcome:
    """Numbers of requests."""

    in_flight: int  # sent and not answered when the engine was struck
    begun: int  # of those, had sent something
    begun_lost: int  # of those, ended with an error
    waiting: int  # had sent nothing
    waiting_lost: int
    refused: int  # came while there was no engine, and were sent away
    later_lost: int  # came after the strike and failed otherwise
    wrong: int  # were answered by another version than the one that was live
    answered: int  # of all, complete

    @property
    def lost(self) -> int:
        """Ended with an error, without those that were sent away at the door."""
        return self.begun_lost + self.waiting_lost + self.later_lost


def outcome_of(records: Sequence[Record], live: dict[str, str], *, struck_seconds: float) -> Outcome:
    """Sort the records of a load by where they were `struck_seconds` after its start.

    `live` has the version of each adapter.
    """
    in_flight = [
        r
        for r in records
        if r.sent_seconds < struck_seconds and (r.done_seconds is None or r.done_seconds >= struck_seconds)
    ]
    begun = [r for r in in_flight if _begun(r, struck_seconds)]
    waiting = [r for r in in_flight if not _begun(r, struck_seconds)]
    later = [r for r in records if r.sent_seconds >= struck_seconds]
    refused = [r for r in later if r.status == REFUSED_STATUS]
    return Outcome(
        in_flight=len(in_flight),
        begun=len(begun),
        begun_lost=sum(not r.ok for r in begun),
        waiting=len(waiting),
        waiting_lost=sum(not r.ok for r in waiting),
        refused=len(refused),
        later_lost=sum(not r.ok for r in later) - len(refused),
        wrong=sum(
            r.ok and r.version != (live[r.adapter] if r.adapter is not None else None) for r in records
        ),
        answered=sum(r.ok for r in records),
    )


def _begun(record: Record, struck_seconds: float) -> bool:
    return bool(record.event_seconds) and record.event_seconds[0] < struck_seconds
