"""What is held against a canary: which exchanges count as its failures, and when they are too many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bases.errors import HotswapError
from serve.errors import (
    DeadlineExceededError,
    EngineDeadError,
    EngineError,
    EngineNotReadyError,
    ProbeFailedError,
    QueueTimeoutError,
)
from serve.lifecycle.evidence import Window, fails_more, is_slower, typical_ratio
from serve.lifecycle.traffic import Guard

if TYPE_CHECKING:
    from serve.http.exchange import Record

Fault = Literal["error_rate", "ttft", "probe"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a canary is taken back."""

    fault: Fault
    reason: str
    numbers: Mapping[str, float]


def version_failed(record: Record) -> bool | None:
    """Whether an exchange failed by the doing of the version that answered; None: it says nothing about it.

    A client's mistake or hang-up, a full queue, a shutdown, and an engine that is gone altogether say nothing.
    """
    error = record.error
    if error is None:
        return False if record.completed else None
    if isinstance(error, EngineDeadError | EngineNotReadyError | QueueTimeoutError):
        return None
    if isinstance(error, EngineError | DeadlineExceededError):
        return True
    return None if isinstance(error, HotswapError) else True


def too_many_errors(guard: Guard, canary: Window, stable: Window) -> Finding | None:
    """The finding that a canary fails more often than it may, if it does beyond chance."""
    if guard.max_error_rate is None or not fails_more(canary, stable, guard.max_error_rate):
        return None
    return Finding(
        "error_rate",
        f"{canary.failures} of {canary.answers} answers failed, beyond chance more than "
        f"{guard.max_error_rate:.3g}; of the stable version's {stable.answers} failed {stable.failures}",
        {
            "answers": canary.answers,
            "failures": canary.failures,
            "stable_answers": stable.answers,
            "stable_failures": stable.failures,
        },
    )


def too_slow(guard: Guard, canary: Window, stable: Window) -> Finding | None:
    """The finding that a canary begins its answers later than it may, if it does beyond chance."""
    ours, theirs = canary.times(), stable.times()
    if guard.max_ttft_ratio is None or not is_slower(ours, theirs, guard.max_ttft_ratio):
        return None
    ratio = typical_ratio(ours, theirs) or 0.0
    return Finding(
        "ttft",
        f"its first token typically takes {ratio:.3g} times as long as the stable version's, beyond chance more "
        f"than {guard.max_ttft_ratio:.3g} times",
        {"ttft_ratio": ratio, "answers": len(ours), "stable_answers": len(theirs)},
    )


def probe_refused(error: ProbeFailedError) -> Finding:
    """The finding that a canary does not answer as it was trained to any more."""
    measured = error.numbers or {}
    numbers = {name: float(value) for name, value in measured.items() if isinstance(value, int | float)}
    return Finding("probe", str(error), numbers)
