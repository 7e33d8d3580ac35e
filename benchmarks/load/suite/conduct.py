"""Carries out the parts of a suite: each has its share of the time that is left; one that fails costs no other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.errors import BenchmarkError
from benchmarks.load.suite.budget import Budget
from benchmarks.load.suite.parts import Part, capacity_of
from benchmarks.load.suite.stage import Measured, Stage

INTERRUPTED = "it was interrupted"


@dataclass(slots=True)
class Outcome:
    """What came of the parts."""

    done: dict[str, tuple[Stage, Measured]] = field(default_factory=dict)  # the stage as that part had it
    left_out: dict[str, str] = field(default_factory=dict)  # key -> why
    capacity_req_s: float | None = None
    interrupted: bool = False


def conduct(
    parts: Sequence[Part],
    stage: Stage,
    budget: Budget,
    *,
    begin: Callable[[int], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Measure one part after the other; `begin` is told the place of each.

    Parts that fail (BenchmarkError) or have no time left are left out with the reason; Ctrl-C leaves out the part
    that it meets and all after it.
    """
    outcome = Outcome(capacity_req_s=stage.capacity_req_s)
    for place, part in enumerate(parts):
        begin(place)
        lengths = budget.lengths(part.need, [later.need for later in parts[place + 1 :]])
        if lengths is None:
            outcome.left_out[part.key] = "no time was left for it"
            continue
        own = stage.of_part(part.key, lengths, outcome.capacity_req_s)
        began = clock()
        try:
            measured = part.measure(own)
        except BenchmarkError as error:
            outcome.left_out[part.key] = str(error)
        except KeyboardInterrupt:
            outcome.interrupted = True
            outcome.left_out.update({one.key: INTERRUPTED for one in parts[place:]})
            break
        else:
            outcome.done[part.key] = (own, measured)
            if outcome.capacity_req_s is None:
                outcome.capacity_req_s = capacity_of(part.key, measured.runs)
            budget.took(clock() - began, part.need, lengths)
    return outcome
