"""Training examples that also stand among the held-out ones, which would make every figure too good."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from adapters.data.example import Example
from adapters.data.funnel import FunnelRow
from adapters.data.split import SplitExamples
from adapters.data.step import Finding
from adapters.errors import DataError

STEP = "leak check"


def remove_leaks(
    split: SplitExamples, *, method: Literal["minhash", "simhash"], threshold: float
) -> tuple[SplitExamples, FunnelRow, tuple[str, ...]]:
    """The split without training examples that nearly repeat a held-out one, the step's row, and warnings.

    Held-out examples are never touched; where validation and test share some, that is a warning.
    Raises DataError when no training example is left.
    """
    from adapters.data.clean.duplicates import near_duplicates_between

    def repeated(
        held: Sequence[Example], among: Sequence[Example], context: Sequence[Example]
    ) -> tuple[Finding, ...]:
        if not (held and among):
            return ()
        return near_duplicates_between(held, among, method=method, threshold=threshold, context=context)

    started = time.perf_counter()
    leaks: dict[int, Finding] = {}
    counts = []
    for name, held, other in (
        ("validation", split.validation, split.test),
        ("test", split.test, split.validation),
    ):
        found = {id(finding.example): finding for finding in repeated(held, split.train, other)}
        counts.append((name, len(found)))
        leaks = found | leaks
    train = tuple(example for example in split.train if id(example) not in leaks)
    warnings = []
    if leaks:
        warnings.append(
            f"left out of training, as (near) repeats of held-out examples: {len(leaks):,} ({STEP})"
        )
    if not train:
        first = next(iter(leaks.values()))
        raise DataError(
            f"{first.example.origin}: every training example repeats a held-out one (this one "
            f"{first.twin.origin if first.twin else 'too'}); hold out other examples, or switch the check off with "
            "--no-leak-check."
        )
    if both := repeated(split.test, split.validation, split.train):
        warnings.append(
            f"validation examples that (nearly) repeat a test example: {len(both):,}, such as "
            f"{both[0].example.origin}; what is chosen by validation looks better in the test than it is"
        )
    total = len(split.train) + len(split.validation) + len(split.test)
    row = FunnelRow(
        STEP,
        before=total,
        after=total - len(split.train) + len(train),
        seconds=time.perf_counter() - started,
        counts=tuple(counts),
        removed_findings=tuple(leaks.values()),
    )
    return replace(split, train=train), row, tuple(warnings)
