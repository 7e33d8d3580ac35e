"""The scan for personal data: found, and on request replaced, in every part of every example."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Literal

from adapters.data.clean.identifiers import IDENTIFIERS, Match
from adapters.data.clean.phones import DEFAULT_REGIONS, find_phones
from adapters.data.example import Example
from adapters.data.step import Finding, StepResult
from adapters.errors import DataError

Action = Literal["warn", "redact", "off"]

REPLACEMENTS = {
    "mail": "[MAIL]",
    "phone": "[PHONE]",
    "card": "[CARD]",
    "iban": "[IBAN]",
    "identity card": "[ID]",
    "ssn": "[SSN]",
    "ip": "[IP]",
}
"""What takes the place of a kind of personal data."""

_MAX_LISTED = 5


def scan_personal(
    examples: Sequence[Example],
    *,
    action: Action,
    regions: Sequence[str] = DEFAULT_REGIONS,
    ip: bool = False,
) -> StepResult:
    """Mail, telephone, payment cards, IBAN, Chinese resident identity cards and US social security numbers.

    - `warn`: examples with such data are flagged with the kinds and masked excerpts (`m***g`), and kept;
    - `redact`: every find is replaced by `[MAIL]`, `[PHONE]`, ...; the findings hold the redacted examples;
    - `off`: nothing is looked at.

    `regions` are the countries (ISO 3166) whose telephone numbers are known without a country code; `ip` adds
    IPv4 addresses. Reasons and counts never hold a value. `counts` are finds by kind.

    Raises:
        DataError: the action or a region is unknown.
    """
    if action not in ("warn", "redact", "off"):
        raise DataError(f"The action for personal data is {action!r}; give warn, redact or off.")
    if action == "off":
        return StepResult(name="personal data", kept=tuple(examples))
    kept, flagged = [], []
    kinds: Counter[str] = Counter()
    changed = 0
    for example in examples:
        finds = [list(find_personal(part, regions=regions, ip=ip)) for part in example.parts()]
        matches = [match for part in finds for match in part]
        if not matches:
            kept.append(example)
            continue
        kinds.update(match.kind for match in matches)
        if action == "redact":
            pairs = zip(example.parts(), finds, strict=True)
            example = example.with_parts(tuple(_redacted(part, found) for part, found in pairs))
            changed += 1
        kept.append(example)
        flagged.append(Finding(example, _reason(matches)))
    return StepResult(
        name="personal data",
        kept=tuple(kept),
        flagged=tuple(flagged),
        changed=changed,
        counts=tuple(sorted(kinds.items())),
    )


def find_personal(
    text: str, *, regions: Sequence[str] = DEFAULT_REGIONS, ip: bool = False
) -> Iterator[Match]:
    """The finds in one text, in order, none overlapping another: of two kinds the one with a checksum wins."""
    finds = [find(text) for kind, find in IDENTIFIERS.items() if ip or kind != "ip"]
    taken: list[Match] = []
    for match in chain(*finds, find_phones(text, regions)):
        if all(match.end <= other.start or other.end <= match.start for other in taken):
            taken.append(match)
    yield from sorted(taken, key=lambda match: match.start)


def masked(value: str) -> str:
    """The first and the last character of a value, with three asterisks whatever its length."""
    return f"{value[0]}***{value[-1]}"


def _redacted(text: str, matches: Sequence[Match]) -> str:
    out = []
    end = 0
    for match in matches:
        out += [text[end : match.start], REPLACEMENTS[match.kind]]
        end = match.end
    return "".join(out) + text[end:]


def _reason(matches: Sequence[Match]) -> str:
    listed = ", ".join(f"{match.kind} {masked(match.value)}" for match in matches[:_MAX_LISTED])
    more = len(matches) - _MAX_LISTED
    return f"personal data: {listed}" + (f" and {more} more" if more > 0 else "")
