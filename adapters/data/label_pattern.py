"""The pattern that finds a label in an answer: a regular expression with one group, around the label."""

from __future__ import annotations

import re


def check_label_pattern(value: str | None) -> str | None:
    """`value` again; raise ValueError when it is not a regular expression with exactly one group."""
    if value is None:
        return None
    try:
        groups = re.compile(value).groups
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression: {error}") from None
    if groups != 1:
        raise ValueError(
            rf"{value!r} has {groups} groups and needs one, around the label: `Risk: (\d)`; others as (?:...)"
        )
    return value
