"""Bad lines of a file, collected so that one run shows them all."""

from __future__ import annotations

from dataclasses import dataclass, field

from adapters.data.example import Origin
from adapters.errors import DataError

MAX_SHOWN = 5


def num(number: int, noun: str) -> str:
    """`1 example`, `2,000 examples`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


@dataclass(slots=True)
class BadLines:
    """Collects what is wrong with single lines; the same fault is shown once, with its first line.

    Holds the first `MAX_SHOWN` distinct faults whatever the number of bad lines, so that a file of faults stays
    cheap.
    """

    count: int = 0
    _first: dict[str, Origin] = field(default_factory=dict)
    _alike: dict[str, int] = field(default_factory=dict)

    def add(self, origin: Origin, fault: str) -> None:
        """`fault` says what is wrong with that line and what to do, without the file and the line."""
        self.count += 1
        if fault in self._first:
            self._alike[fault] += 1
        elif len(self._first) < MAX_SHOWN:
            self._first[fault], self._alike[fault] = origin, 1

    def render(self) -> str:
        """One line per distinct fault, `file.jsonl:17: ...`, then how many more there are."""
        lines = []
        for fault, origin in self._first.items():
            more = self._alike[fault] - 1
            lines.append(f"{origin}: {fault}" + (f" (and {more:,} more like it)" if more else ""))
        hidden = self.count - sum(self._alike.values())
        if hidden:
            lines.append(f"and {num(hidden, 'more bad line')}")
        return "\n".join(lines)

    def refuse(self) -> None:
        """Raise DataError with all of it when there is anything."""
        if self.count:
            lines = (
                "this line, or leave it" if self.count == 1 else f"these {self.count:,} lines, or leave them"
            )
            raise DataError(f"{self.render()}\nMend {lines} out with --skip-bad-lines.")
