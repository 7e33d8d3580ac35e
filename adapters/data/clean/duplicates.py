"""Exact and near duplicates: removed, grouped for a split, and looked for between splits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adapters.data.clean.keys import answer_key, exact_key, prompt_key
from adapters.data.clean.similarity import (
    MAX_ALL_PAIRS,
    Comparison,
    Components,
    Method,
    check_similarity_options,
    compare,
    similar_rows,
)
from adapters.data.example import Example
from adapters.data.step import Finding, StepResult


def drop_exact_duplicates(examples: Sequence[Example]) -> StepResult:
    """The first of every set of examples that are equal but for case, spacing and punctuation (`keys.normalised`).

    Kept examples that ask exactly the same as an earlier one and answer otherwise are flagged: the model cannot
    learn both.
    """
    first_of: dict[bytes, Example] = {}
    asked: dict[bytes, tuple[bytes, Example]] = {}
    kept, removed, flagged = [], [], []
    for example in examples:
        key = exact_key(example)
        if key in first_of:
            removed.append(Finding(example, "exact duplicate", first_of[key]))
            continue
        first_of[key] = example
        kept.append(example)
        prompt = prompt_key(example)
        if prompt is not None:
            answer, earlier = asked.setdefault(prompt, (answer_key(example), example))
            if answer != answer_key(example):
                flagged.append(Finding(example, "conflicting answers to the same prompt", earlier))
    counts = (("exact duplicates", len(removed)), ("conflicting answers", len(flagged)))
    return StepResult(
        name="exact duplicates",
        kept=tuple(kept),
        removed=tuple(removed),
        flagged=tuple(flagged),
        counts=tuple(count for count in counts if count[1]),
    )


def drop_near_duplicates(
    examples: Sequence[Example],
    *,
    method: Method = "minhash",
    threshold: float = 0.85,
    max_all_pairs: int = MAX_ALL_PAIRS,
) -> StepResult:
    """The first of every cluster of near duplicates.

    Two examples are near duplicates when their answers, labels and system messages are equal (`keys.normalised`)
    and the Jaccard similarity of their prompts' shingles is at least `threshold`; plain texts are compared as a
    whole. A cluster is everything that hangs together through such pairs, so that neither the order nor the
    method's luck decides who is alike.

    Raises:
        DataError: the threshold is not above 0 and at most 1, or the method is unknown.
    """
    comparison = compare(examples)
    components = _components(comparison, method=method, threshold=threshold, max_all_pairs=max_all_pairs)
    first_of: dict[int, int] = {}
    kept, removed = [], []
    for index, example in enumerate(examples):
        first = first_of.setdefault(int(components.of[comparison.row_of_example[index]]), index)
        if first == index:
            kept.append(example)
            continue
        similarity = comparison.similarity(first, index)
        reason = f"near duplicate, similarity {similarity:.2f}"
        if similarity < threshold - 1e-9:
            reason += f", through others that are at least {threshold:.2f} alike"
        removed.append(Finding(example, reason, examples[first]))
    num_clusters = len({id(finding.twin) for finding in removed})
    counts = (("near duplicates", len(removed)), ("clusters", num_clusters)) if removed else ()
    return StepResult(name="near duplicates", kept=tuple(kept), removed=tuple(removed), counts=counts)


def near_duplicate_groups(
    examples: Sequence[Example],
    *,
    method: Method = "minhash",
    threshold: float = 0.85,
    max_all_pairs: int = MAX_ALL_PAIRS,
) -> list[int]:
    """A group's number per example, from 0 in order of appearance: a split must not part the members of one.

    In one group are near duplicates and examples that ask exactly the same, whatever they answer.
    """
    comparison = compare(examples)
    components = _components(comparison, method=method, threshold=threshold, max_all_pairs=max_all_pairs)
    asked: dict[bytes, int] = {}
    pairs = []
    for index, example in enumerate(examples):
        first = asked.setdefault(prompt_key(example) or exact_key(example), index)
        if first != index:
            pairs.append((comparison.row_of_example[first], comparison.row_of_example[index]))
    if pairs:
        left, right = np.array(pairs, np.int64).T
        components.join(left, right)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(int(components.of[row]), len(numbers)) for row in comparison.row_of_example]


def near_duplicates_between(
    left: Sequence[Example],
    right: Sequence[Example],
    *,
    method: Method = "minhash",
    threshold: float = 0.85,
    context: Sequence[Example] = (),
    max_all_pairs: int = MAX_ALL_PAIRS,
) -> tuple[Finding, ...]:
    """The examples of `right` that are in `left` as well, or nearly; each once, `twin` the most similar of `left`.

    An example that asks exactly the same as one of `left` is found whatever it answers. `context` are further
    examples of the same data (the third split): what is a template is judged over all of them, so that the
    verdict is the same as that of `near_duplicate_groups` over the whole.

    Raises:
        DataError: the threshold is not above 0 and at most 1, or the method is unknown.
    """
    comparison = compare([*left, *right, *context])
    rows = comparison.row_of_example
    left_rows, right_rows = rows[: len(left)], rows[len(left) : len(left) + len(right)]
    first_in_left: dict[int, int] = {}
    for index, row in enumerate(left_rows):
        first_in_left.setdefault(int(row), index)
    # Best match per row of the right side: (similarity, index in left), negated for the smaller index on a tie.
    best = {row: (1.0, -index) for row, index in first_in_left.items()}
    wanted = np.zeros((len(comparison.groups), 2), bool)
    wanted[left_rows, 0] = wanted[right_rows, 1] = True
    found = similar_rows(
        comparison, threshold=threshold, method=method, max_all_pairs=max_all_pairs, wanted=wanted
    )
    for first, second, similarities in found:
        for a, b, similarity in zip(first.tolist(), second.tolist(), similarities.tolist(), strict=True):
            for here, there in ((a, b), (b, a)):
                if here in first_in_left and there not in first_in_left:
                    best[there] = max(best.get(there, (0.0, 0)), (similarity, -first_in_left[here]))
    asked: dict[bytes, Example] = {}
    for example in left:
        asked.setdefault(prompt_key(example) or exact_key(example), example)
    findings = []
    for example, row in zip(right, right_rows.tolist(), strict=True):
        same_prompt = asked.get(prompt_key(example) or exact_key(example))
        if row in best:
            similarity, negated = best[row]
            reason = "duplicate" if same_prompt else f"near duplicate, similarity {similarity:.2f}"
            findings.append(Finding(example, reason, left[-negated]))
        elif same_prompt is not None:
            findings.append(Finding(example, "same prompt, another answer", same_prompt))
    return tuple(findings)


def _components(
    comparison: Comparison, *, method: Method, threshold: float, max_all_pairs: int
) -> Components:
    """Clusters of rows."""
    check_similarity_options(threshold, method)
    components = Components(len(comparison.groups))
    pieces = list(similar_rows(comparison, threshold=threshold, method=method, max_all_pairs=max_all_pairs))
    if pieces:
        components.join(
            np.concatenate([piece[0] for piece in pieces]), np.concatenate([piece[1] for piece in pieces])
        )
    return components
