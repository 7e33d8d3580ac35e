"""What the labels of the examples must be, so that something can be learned from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from adapters.data.example import Example
from adapters.data.split import SplitExamples
from adapters.errors import DataError

_MAX_SHOWN = 5


def one_class(examples: Sequence[Example], *, left: bool = False) -> DataError | None:
    """The error that all labelled examples of a task, two or more, have one label; None where they have not.

    `left` says that these are what preparation left for training.
    """
    by_task: dict[str, list[Example]] = {}
    for example in examples:
        if example.label is not None:
            by_task.setdefault(example.task, []).append(example)
    for labelled in by_task.values():
        if len(labelled) > 1 and len({example.label for example in labelled}) == 1:
            return DataError(
                f"{labelled[0].origin.file}: all {len(labelled):,} labelled examples"
                f"{' that are left for training' if left else ''} have one label, {labelled[0].label!r}, which "
                "a model would learn to give always; add examples of other classes, or accept it with "
                "--allow-one-class."
            )
    return None


def unseen_labels(split: SplitExamples) -> Iterator[str]:
    """A warning for each held-out part with labels that no training example has."""
    seen = {(example.task, example.label) for example in split.train}
    for name, part in (("validation", split.validation), ("test", split.test)):
        unseen = sorted({e.label for e in part if e.label is not None and (e.task, e.label) not in seen})
        if unseen:
            shown = ", ".join(map(repr, unseen[:_MAX_SHOWN])) + (" ..." if len(unseen) > _MAX_SHOWN else "")
            yield f"the {name} examples have labels that no training example has: {shown}"
