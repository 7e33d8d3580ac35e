"""Short texts of options that hold numbers: `poisson:4`, `gamma:rate=4,cv=2`, `normal:128,32`."""

from __future__ import annotations

import math

from benchmarks.load.errors import LoadOptionError


def split_option(text: str, *, option: str, known: dict[str, tuple[str, ...]]) -> tuple[str, list[float]]:
    """(kind, its numbers in the order of `known[kind]`). Numbers are given in that order, or by name.

    Raises LoadOptionError for an unknown kind, and for numbers that are missing, given twice, or not finite.
    """
    kind, _, rest = text.partition(":")
    if kind not in known:
        shown = ", ".join(f"{name}:{','.join(fields)}" if fields else name for name, fields in known.items())
        raise LoadOptionError(f"{option} {text!r} is none of {shown}")
    fields = known[kind]
    found: dict[str, float] = {}
    for place, part in enumerate(part for part in rest.split(",") if part.strip()):
        name, equals, value = part.partition("=")
        if not equals:
            name, value = fields[place] if place < len(fields) else "", part
        name = name.strip()
        if name not in fields or name in found:
            raise LoadOptionError(f"{option} {text!r}: {part.strip()!r} is not one of {', '.join(fields)}")
        found[name] = _number(value, f"{option} {text!r}")
    missing = [name for name in fields if name not in found]
    if missing:
        raise LoadOptionError(
            f"{option} {text!r} lacks {', '.join(missing)}; write {kind}:{','.join(fields)}"
        )
    return kind, [found[name] for name in fields]


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise LoadOptionError(f"{where}: {text.strip()!r} is not a number") from None
    if not math.isfinite(value) or value < 0:
        raise LoadOptionError(f"{where}: {text.strip()} is not a number of 0 or more")
    return value


def whole_numbers(text: str, *, option: str, most: int) -> tuple[int, ...]:
    """`1,4,16`: numbers from 1 to `most`, ascending. Raises LoadOptionError, also for none or one given twice."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [part for part in parts if not (part.isascii() and part.isdigit() and 1 <= int(part) <= most)]
    if wrong or not parts:
        found = f"{', '.join(wrong)} is not" if wrong else "give"
        raise LoadOptionError(f"{option} {text!r}: {found} a whole number from 1 to {most}, e.g. 1,4,16")
    numbers = sorted({int(part) for part in parts})
    if len(numbers) != len(parts):
        raise LoadOptionError(f"{option} {text!r} names a number twice")
    return tuple(numbers)
