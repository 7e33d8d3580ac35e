"""What there is to see in prepared data: lengths, labels, and which tokens are learned."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from adapters.data.example import Example, Origin
from adapters.data.prepare import PreparedData

if TYPE_CHECKING:
    from adapters.data.encode import EncodedExample, ExampleEncoder

_UNLIMITED_TOKENS = 2**40
_MAX_BINS = 12


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens in a row that are all learned, or all not."""

    text: str
    supervised: bool
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One training sequence as text, in spans."""

    origin: Origin
    spans: tuple[Span, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens of the whole sequence."""
        return sum(span.num_tokens for span in self.spans)


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar of a histogram: lengths from `low` to `high`, both included; the last bin may have no end."""

    low: int
    high: int | None
    count: int


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long the sequences of all splits are."""

    unit: Literal["tokens", "characters"]
    bins: tuple[Bin, ...]
    median: int
    percentile_95: int
    longest: int
    total: int


@dataclass(frozen=True, slots=True)
class TokenView:
    """What only the base's tokenizer and template show."""

    lengths: Lengths
    supervised_share: float
    """Share of all tokens that is learned, 0 to 1."""
    samples: tuple[Sample, ...]
    warnings: tuple[str, ...]


def view_tokens(
    prepared: PreparedData, base_folder: Path, *, num_samples: int, progress: Callable[[str], None]
) -> TokenView:
    """Encode everything as training does. Raises DataError for what cannot be learned from."""
    from adapters.data.encode import ExampleEncoder, encode_all

    examples = [example for part in prepared.splits.values() for example in part]
    progress(f"Tokens: {len(examples):,} examples")
    encoder = ExampleEncoder(base_folder, max_length_tokens=_UNLIMITED_TOKENS)
    encoded = encode_all(examples, encoder)
    sizes = [len(example.input_ids) for example in encoded.examples]
    num_learned = sum(sum(example.supervised) for example in encoded.examples)
    picked = [_sample(example, encoder) for example in pick(prepared.train, num_samples)]
    return TokenView(
        count_lengths(sizes, "tokens"),
        num_learned / sum(sizes),
        tuple(sample for samples in picked for sample in samples),
        encoded.warnings,
    )


def count_characters(prepared: PreparedData) -> Lengths:
    """Lengths without a tokenizer: characters of all texts of an example."""
    return count_lengths(
        [sum(map(len, example.parts())) for part in prepared.splits.values() for example in part],
        "characters",
    )


def count_lengths(sizes: Sequence[int], unit: Literal["tokens", "characters"]) -> Lengths:
    """A histogram of at most `_MAX_BINS` bins of a round width; the longest 1 % may be in the last, open one.

    `sizes` is not empty.
    """
    ordered = sorted(sizes)
    top = _percentile(ordered, 0.99)
    width = _round_up(max(1, math.ceil((top - ordered[0] + 1) / (_MAX_BINS - 1))))
    start = ordered[0] // width * width
    counts = Counter(min((size - start) // width, _MAX_BINS - 1) for size in ordered)
    last = max(counts)
    bins = []
    for index in range(last + 1):
        low = start + index * width
        is_open = index == last and ordered[-1] >= low + width
        bins.append(Bin(low, None if is_open else low + width - 1, counts[index]))
    return Lengths(
        unit, tuple(bins), _percentile(ordered, 0.5), _percentile(ordered, 0.95), ordered[-1], sum(ordered)
    )


def count_labels(prepared: PreparedData) -> dict[str, dict[str, int]]:
    """Label to split to number of examples, the commonest label first; empty where nothing is labelled."""
    counts: dict[str, dict[str, int]] = {}
    for split, examples in prepared.splits.items():
        for example in examples:
            if example.label is not None:
                row = counts.setdefault(example.label, dict.fromkeys(prepared.splits, 0))
                row[split] += 1
    return dict(sorted(counts.items(), key=lambda item: (-sum(item[1].values()), item[0])))


def pick(examples: Sequence[Example], number: int) -> list[Example]:
    """That many examples, or all, evenly from the first to the last."""
    number = min(number, len(examples))
    return [examples[index * len(examples) // number] for index in range(number)]


def _sample(example: Example, encoder: ExampleEncoder) -> list[Sample]:
    return [
        Sample(encoded.origin, tuple(_spans(encoded, encoder)))
        for encoded in encoder.encode_whole([example])[0]
    ]


def _spans(encoded: EncodedExample, encoder: ExampleEncoder) -> list[Span]:
    spans = []
    pairs = zip(encoded.input_ids, encoded.supervised, strict=True)
    for supervised, group in groupby(pairs, key=lambda pair: pair[1]):
        ids = [token for token, _ in group]
        spans.append(Span(encoder.decode(ids), supervised, len(ids)))
    return spans


def _percentile(ordered: Sequence[int], share: float) -> int:
    """The smallest value that at least that share of the values does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _round_up(width: int) -> int:
    """The next of 1, 2, 5, 10, 20, 50, ..."""
    scale = 1
    while True:
        for step in (1, 2, 5):
            if step * scale >= width:
                return step * scale
        scale *= 10
