"""The label step: names of classes that mean the same made the same."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from adapters.data.example import Example
from adapters.data.step import Finding, StepResult

# The words that introduce a class in an answer: `Level: high`, `"label": "high"`, `风险等级：高`.
_INTRODUCTION = (
    r"(?:(?i:\b(?:label|class|category|level|risk(?: level)?|sentiment|intent))|标签|类别|分类|等级|级别|情感|意图)"
    r"[\"'*]{0,3}\s*(?:[:：=]|(?i:\bis\b)|为|是)[\s\"'*]{0,6}"
)


def normalise_labels(examples: Sequence[Example], *, mapping: Mapping[str, str]) -> StepResult:
    """The examples with their labels mapped: first as written, then regardless of case and outer spaces.

    The mapping is applied once, never to its own result. Where the answer is nothing but the old label, or names
    it behind an introduction (`Level: high`, `"label": "high"`, `风险等级：高`), the answer changes with it; free
    wording that mentions the class elsewhere is not rewritten, and flagged. Labels that the mapping neither maps
    nor maps to are flagged as unknown. Without a mapping nothing changes.

    `counts` has `before LABEL` and `after LABEL` for every label, and `unknown LABEL`.
    """
    folded = _case_insensitive(mapping)
    targets = set(mapping.values())
    before: Counter[str] = Counter()
    after: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    kept, flagged = [], []
    for example in examples:
        label = example.label
        if label is None:
            kept.append(example)
            continue
        target = label if label in targets else folded.get(_fold(label), label)
        target = mapping.get(label, target)
        before[label] += 1
        after[target] += 1
        if mapping and target not in targets:
            unknown[label] += 1
            flagged.append(Finding(example, f"unknown label {label!r}: not in the label map"))
        if target == label:
            kept.append(example)
            continue
        changed, named = _relabel(example, label, target)
        kept.append(changed)
        if not named:
            flagged.append(
                Finding(changed, f"label {label!r} became {target!r}; the answer's wording was left")
            )
    counts = [
        (f"{when} {label}", count)
        for when, seen in (("before", before), ("after", after), ("unknown", unknown))
        for label, count in sorted(seen.items())
    ]
    return StepResult(
        name="labels",
        kept=tuple(kept),
        flagged=tuple(flagged),
        changed=sum(old != new for old, new in zip(examples, kept, strict=True)),
        counts=tuple(counts),
    )


def _fold(label: str) -> str:
    return " ".join(label.casefold().split())


def _case_insensitive(mapping: Mapping[str, str]) -> dict[str, str]:
    """Folded names to targets; a name that folds together with another of a different target is left out.

    The targets themselves are names too, so that `HIGH` becomes `high` in a map to `high`.
    """
    folded: dict[str, str] = {}
    ambiguous = set()
    pairs = [*mapping.items(), *((target, target) for target in mapping.values() if target not in mapping)]
    for name, target in pairs:
        if folded.setdefault(_fold(name), target) != target:
            ambiguous.add(_fold(name))
    return {name: target for name, target in folded.items() if name not in ambiguous}


def _relabel(example: Example, label: str, target: str) -> tuple[Example, bool]:
    """The example with its new label, and whether its answer agrees with it."""
    relabelled = replace(example, label=target)
    answer = example.answer
    if example.shape == "text":
        return relabelled, True
    if answer.strip().casefold() == label.strip().casefold():
        renamed = answer.replace(answer.strip(), target) if answer.strip() else answer
    else:
        pattern = rf"({_INTRODUCTION})(?i:{re.escape(label.strip())})(?![A-Za-z0-9_])"
        renamed = re.sub(pattern, lambda match: match.group(1) + target, answer)
    if renamed == answer:
        return relabelled, label.strip().casefold() not in answer.casefold()
    return relabelled.with_parts((*relabelled.parts()[:-1], renamed)), True
