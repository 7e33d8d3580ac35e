"""From sources to three splits, every step counted: the one way data gets into training.

Order: read, labels, text, personal data, length, exact and near-duplicates, outliers, split, leak check. Splits
that the user gives are cleaned like the training data, since the same model answers them, but nothing is taken
out of them: a test set stays the test set. Where one of their examples is in the training data, the training data
loses it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from adapters.data.classes import one_class, unseen_labels
from adapters.data.content import fingerprint
from adapters.data.example import Example
from adapters.data.funnel import Funnel, FunnelRow
from adapters.data.gather import Gathered, gather
from adapters.data.leaks import remove_leaks
from adapters.data.problems import num
from adapters.data.settings import DataSettings
from adapters.data.source import DataSource, check_sources
from adapters.data.split import SplitExamples, split_examples
from adapters.data.split_name import SPLITS, Split
from adapters.data.step import StepResult
from adapters.errors import DataError

Progress = Callable[[str], None]
Step = Callable[[Sequence[Example]], StepResult]

_REMEDIES = {
    "text": "look at the file, or switch the part of cleaning off that took the text away (--no-clean-html)",
    "length": "change --min-characters and --max-characters, or switch the step off with --no-length-filter",
    "exact duplicates": "give examples that differ, or switch the step off with --no-exact-duplicates",
    "near-duplicates": "give examples that differ, raise --near-duplicate-threshold, or say --near-duplicates off",
}


@dataclass(frozen=True, slots=True)
class PreparedData:
    """Examples ready to be encoded."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    funnel: Funnel
    warnings: tuple[str, ...]
    task_weights: Mapping[str, float]
    """Every task of the training data to its weight, also tasks that a column named."""
    fingerprint: str
    """sha256 in hex over the content of the three splits, in order."""

    @property
    def splits(self) -> dict[Split, tuple[Example, ...]]:
        """All three, by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def prepare_data(
    sources: Sequence[DataSource], settings: DataSettings, *, progress: Progress
) -> PreparedData:
    """Read, clean and split. `progress` is told what begins, and of long readings every two seconds.

    Raises DataError for everything that cannot be read or used, and for a step that leaves nothing, or of many
    examples only one.
    """
    check_sources(sources)
    gathered, row = gather(sources, settings, progress=progress)
    run = _Preparation(settings, gathered, progress, rows=[row], warnings=gathered.warnings)
    run.clean()
    few_classes = one_class(gathered.pool)
    run.select()
    # Copies of one example have one label, too: that they are copies is said first.
    if few_classes and not settings.allow_one_class:
        raise few_classes
    split = run.split()
    if settings.leak_check and (split.validation or split.test):
        progress("Leak check")
        split, row, warnings = remove_leaks(
            split,
            method=run.similarity_method,
            threshold=settings.near_duplicate_threshold,
        )
        run.rows.append(row)
        run.warnings += warnings
    if (few_classes := one_class(split.train, left=True)) and not settings.allow_one_class:
        raise few_classes
    run.warnings += unseen_labels(split)
    splits = {"train": split.train, "validation": split.validation, "test": split.test}
    return PreparedData(
        split.train,
        split.validation,
        split.test,
        funnel=Funnel(tuple(run.rows)),
        warnings=tuple(run.warnings),
        task_weights=gathered.task_weights,
        fingerprint=fingerprint(splits),
    )


@dataclass(slots=True)
class _Preparation:
    """The examples on their way. Rows count all of them, those that are held out included."""

    settings: DataSettings
    data: Gathered
    progress: Progress
    rows: list[FunnelRow] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def clean(self) -> None:
        """Steps that change texts: all splits alike."""
        from adapters.data.clean.labels import normalise_labels
        from adapters.data.clean.personal import scan_personal
        from adapters.data.clean.text import clean_text

        settings = self.settings
        if settings.label_mapping or any(example.label for example in self.data.pool):
            self._apply("labels", lambda some: normalise_labels(some, mapping=settings.label_mapping))
            if unknown := self.rows[-1].flagged_findings:
                first = unknown[0]
                self.warnings.append(
                    f"{num(len(unknown), 'label')} to look at, such as {first.example.origin}: {first.reason}"
                )
        if settings.clean_unicode or settings.clean_html or settings.clean_whitespace:
            self._apply(
                "text",
                lambda some: clean_text(
                    some,
                    unicode=settings.clean_unicode,
                    html=settings.clean_html,
                    whitespace=settings.clean_whitespace,
                ),
            )
        if settings.personal != "off":
            self._apply("personal data", lambda some: scan_personal(some, action=settings.personal))
            found = self.rows[-1]
            if found.flagged and settings.personal == "warn":
                kinds = ", ".join(f"{count:,} {kind}" for kind, count in found.counts if count)
                self.warnings.append(
                    f"what looks like personal data is in {num(found.flagged, 'example')} ({kinds}); look at them "
                    "with `hotswap data inspect`, replace it with --personal redact"
                )

    def select(self) -> None:
        """Steps that take examples out: the training data alone."""
        from adapters.data.clean.duplicates import drop_exact_duplicates, drop_near_duplicates
        from adapters.data.clean.length import filter_length
        from adapters.data.clean.outliers import flag_outliers

        settings, threshold = self.settings, self.settings.near_duplicate_threshold
        if settings.length_filter:
            least, most = settings.min_characters, settings.max_characters
            self._apply(
                "length",
                lambda some: filter_length(some, min_characters=least, max_characters=most),
                held_too=False,
            )
        if settings.exact_duplicates:
            self._apply("exact duplicates", drop_exact_duplicates, held_too=False)
            if flagged := self.rows[-1].flagged:
                self.warnings.append(
                    f"examples that ask what an earlier one asks and answer otherwise: {flagged:,}, such as "
                    f"{self.rows[-1].flagged_findings[0].example.origin}; both cannot be learned"
                )
        if (method := settings.near_duplicates) != "off":
            self._apply(
                "near-duplicates",
                lambda some: drop_near_duplicates(some, method=method, threshold=threshold),
                held_too=False,
            )
        if settings.outliers:
            quantile = settings.outlier_quantile
            self._apply("outliers", lambda some: flag_outliers(some, quantile=quantile), held_too=False)

    def split(self) -> SplitExamples:
        """Hold out what was not given, task by task."""
        started = time.perf_counter()
        pool, settings = self.data.pool, self.settings
        self.progress(f"Split: {len(pool):,} examples")
        twins = self._twins()
        parts: dict[Split, list[Example]] = {name: [] for name in SPLITS}
        for tasks in self.data.task_sets():
            chosen = [index for index, example in enumerate(pool) if example.task in tasks]
            place = {index: position for position, index in enumerate(chosen)}
            some_task = next(iter(tasks))
            split_part = split_examples(
                [pool[index] for index in chosen],
                validation_share=self._share("validation", settings.validation_share, some_task),
                test_share=self._share("test", settings.test_share, some_task),
                seed=settings.seed,
                stratify=settings.stratify,
                twins=[
                    (place[left], place[right]) for left, right in twins if left in place and right in place
                ],
            )
            for name in SPLITS:
                parts[name] += getattr(split_part, name)
        order = {id(example): index for index, example in enumerate(pool)}
        for name in SPLITS:
            parts[name].sort(key=lambda example: order[id(example)])
            parts[name] += self.data.held.get(name, [])
        total = self._num_examples()
        counts = tuple((name, len(parts[name])) for name in SPLITS)
        seconds = time.perf_counter() - started
        self.rows.append(FunnelRow("split", total, total, seconds=seconds, counts=counts))
        if not parts["validation"]:
            self.warnings.append(
                "there are no validation examples, so that training cannot stop early; give more examples, a "
                "--validation-share or a --validation-file"
            )
        return SplitExamples(tuple(parts["train"]), tuple(parts["validation"]), tuple(parts["test"]))

    def _share(self, split: Split, share: float, task: str) -> float:
        return 0.0 if self.data.is_given(split, task) else share

    def _apply(self, name: str, step: Step, *, held_too: bool = True) -> None:
        started = time.perf_counter()
        before, pool_before = self._num_examples(), len(self.data.pool)
        self.progress(f"{name.capitalize()}: {before:,} examples")
        result = step(self.data.pool)
        results = [result]
        self.data.pool = list(result.kept)
        for split, examples in self.data.held.items():
            if held_too and examples:
                results.append(step(examples))
                self.data.held[split] = list(results[-1].kept)
        counts: Counter[str] = Counter()
        for some in results:
            counts.update(dict(some.counts))
        flagged = tuple(finding for some in results for finding in some.flagged)
        self.rows.append(
            FunnelRow(
                name,
                before=before,
                after=self._num_examples(),
                changed=sum(some.changed for some in results),
                flagged=len({id(finding.example) for finding in flagged}),
                seconds=time.perf_counter() - started,
                counts=tuple(counts.items()),
                removed_findings=tuple(finding for some in results for finding in some.removed),
                flagged_findings=flagged,
            )
        )
        self._refuse_nothing(name, pool_before, result)

    def _refuse_nothing(self, name: str, before: int, result: StepResult) -> None:
        remedy = _REMEDIES.get(name, "look at the data with this step switched off")
        if not self.data.pool:
            first = result.removed[0]
            raise DataError(
                f"{first.example.origin}: the step {name!r} left nothing of {num(before, 'example')} (this one: "
                f"{first.reason}); {remedy}."
            )
        if "duplicates" in name and before > 1 and len(self.data.pool) == 1:
            raise DataError(
                f"{self.data.pool[0].origin}: all {before:,} examples are this one again, or nearly, so that there "
                f"is nothing to learn; {remedy}."
            )

    def _twins(self) -> list[tuple[int, int]]:
        """Indices of examples that a split must not part: near-duplicates, and those that ask the same."""
        if not self.settings.leak_check:
            return []
        from adapters.data.clean.duplicates import near_duplicate_groups

        groups = near_duplicate_groups(
            self.data.pool, method=self.similarity_method, threshold=self.settings.near_duplicate_threshold
        )
        first: dict[int, int] = {}
        return [(first.setdefault(group, index), index) for index, group in enumerate(groups)]

    @property
    def similarity_method(self) -> Literal["minhash", "simhash"]:
        """How near-duplicates are found where the step that removes them is off, too."""
        return "simhash" if self.settings.near_duplicates == "simhash" else "minhash"

    def _num_examples(self) -> int:
        return len(self.data.pool) + sum(map(len, self.data.held.values()))
