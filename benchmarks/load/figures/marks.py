"""What changes of adapters did to single requests."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.load.client.record import Record
from benchmarks.load.verbs import Verb


def mark(records: Sequence[Record], verbs: Sequence[Verb]) -> None:
    """Set `cold` on the first request that each loaded version answered, and the outcome `unloaded` on a 404 for an
    adapter that was gone, or going, while the request was under way."""
    good = [verb for verb in verbs if verb.error is None and verb.name is not None]
    for name in {verb.name for verb in good}:
        asked = sorted((r for r in records if r.adapter == name), key=lambda record: record.sent_seconds)
        ours = [verb for verb in good if verb.name == name]
        for record in asked:
            if record.status == 404 and any(
                start <= (record.done_seconds or math.inf) and record.sent_seconds <= end
                for start, end in _absences(ours)
            ):
                record.outcome = "unloaded"
        for verb in ours:
            first = next((record for record in asked if record.ok and _answers(record, verb)), None)
            if verb.version is not None and first is not None:
                first.cold = True


def _absences(verbs: Sequence[Verb]) -> list[tuple[float, float]]:
    """From the request to unload to the answer to the next load."""
    found = []
    for place, verb in enumerate(verbs):
        if verb.kind == "unload":
            back = next(
                (later.end_seconds for later in verbs[place + 1 :] if later.kind != "unload"), math.inf
            )
            found.append((verb.at_seconds, back))
    return found


def _answers(record: Record, verb: Verb) -> bool:
    """Whether the version that `verb` loaded answered, by the server's word, or else by the time."""
    if record.sent_seconds < verb.at_seconds:
        return False
    return record.version == verb.version if record.version else record.sent_seconds >= verb.end_seconds
