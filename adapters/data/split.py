"""Train, validation and test: the same data and seed give the same split, and twins stay together."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from adapters.data.content import content_digest
from adapters.data.example import Example
from adapters.data.split_name import SPLITS, Split


@dataclass(frozen=True, slots=True)
class SplitExamples:
    """Each example of the input is in exactly one part, in the order of the input."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...] = ()
    test: tuple[Example, ...] = ()


def split_examples(
    examples: Sequence[Example],
    *,
    validation_share: float,
    test_share: float,
    seed: int,
    stratify: bool = True,
    twins: Iterable[tuple[int, int]] = (),
) -> SplitExamples:
    """Hold out shares of the examples: the total rounded, but at least one where there are two.

    Examples of equal text, and the pairs of indices in `twins`, are never separated; a group of them that is
    larger than what is to be held out stays in train, so that a split may come out smaller. Every task, and with
    `stratify` every label in it, is held out in the same share, as nearly as whole examples allow. Where an example
    goes depends on its content and the seed, not on its place in the file.
    """
    digests = [content_digest(example) for example in examples]
    groups = _groups(examples, twins)
    strata: dict[tuple[str, str], list[list[int]]] = defaultdict(list)
    for group in groups:
        first = examples[group[0]]
        strata[(first.task, (first.label or "") if stratify else "")].append(group)
    for members in strata.values():
        members.sort(key=lambda group: _rank(seed, min(digests[index] for index in group)))
    sizes = {name: sum(map(len, members)) for name, members in strata.items()}
    order = sorted(sizes, key=lambda name: _rank(seed, "/".join(name)))
    part: dict[int, Split] = {}
    shares: tuple[tuple[Split, float], ...] = (("test", test_share), ("validation", validation_share))
    for split, share in shares:
        free = {
            name: sum(len(group) for group in members if group[0] not in part)
            for name, members in strata.items()
        }
        wanted = _allot([(sizes[name], free[name]) for name in order], share)
        for name, num_wanted in zip(order, wanted, strict=True):
            _take(strata[name], num_wanted, split, part)
    parts: dict[Split, list[Example]] = {name: [] for name in SPLITS}
    for index, example in enumerate(examples):
        parts[part.get(index, "train")].append(example)
    return SplitExamples(tuple(parts["train"]), tuple(parts["validation"]), tuple(parts["test"]))


def _allot(strata: Sequence[tuple[int, int]], share: float) -> list[int]:
    """How many examples of each (size, still free) stratum are held out: the total rounded, by largest remainder.

    A stratum gives its last free example only when all others have given theirs but the last, and one example
    always stays for training.
    """
    total, num_free = sum(size for size, _ in strata), sum(free for _, free in strata)
    if share == 0 or num_free < 2:
        return [0] * len(strata)
    wanted = min(max(1, round(total * share)), num_free - 1)
    quotas = [size * wanted / total for size, _ in strata]
    given = [min(int(quota), max(0, free - 1)) for quota, (_, free) in zip(quotas, strata, strict=True)]
    neediest = sorted(range(len(strata)), key=lambda i: given[i] - quotas[i])
    for kept_back in (1, 0):
        while (missing := wanted - sum(given)) > 0:
            can = [i for i in neediest if given[i] < strata[i][1] - kept_back][:missing]
            if not can:
                break
            for i in can:
                given[i] += 1
    return given


def _take(members: list[list[int]], wanted: int, split: Split, part: dict[int, Split]) -> None:
    """Assign groups that are still free, in their order, as long as they fit into what is wanted."""
    for group in members:
        if group[0] not in part and len(group) <= wanted:
            part.update(dict.fromkeys(group, split))
            wanted -= len(group)


def _groups(examples: Sequence[Example], twins: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Indices that belong together; every index is in one group, each group in ascending order."""
    parent = list(range(len(examples)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[tuple[str, ...], int] = {}
    for index, example in enumerate(examples):
        parent[root(index)] = root(first.setdefault((example.shape, *example.parts()), index))
    for left, right in twins:
        parent[max(root(left), root(right))] = min(root(left), root(right))
    groups: dict[int, list[int]] = defaultdict(list)
    for index in range(len(examples)):
        groups[root(index)].append(index)
    return list(groups.values())


def _rank(seed: int, digest: str) -> bytes:
    return hashlib.sha256(f"{seed}:{digest}".encode()).digest()
