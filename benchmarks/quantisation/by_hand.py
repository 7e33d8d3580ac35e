"""What people wrote into the Markdown report between two marks, which stays when the report is made anew."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.errors import PlanError

BEGIN = "<!-- by hand: this part stays when the report is made anew -->"
END = "<!-- end of what was written by hand -->"
_HEADING = "## "


def with_kept_parts(made: str, old: str, *, name: str) -> str:
    """The document `made` with the parts of `old` between BEGIN and END, each behind the section it stood behind.

    Where that section is no more, it stands at the end. `name` is the old document's in the message. Raises
    PlanError for marks that are no pairs.
    """
    sections = _sections(made)
    for heading, part in _kept(old.splitlines(), name):
        place = next((lines for lines in sections if lines[0] == heading), sections[-1])
        place += [*part, ""]
    return "\n".join(line for lines in sections for line in lines).rstrip() + "\n"


def _sections(text: str) -> list[list[str]]:
    """The lines before the first section, then those of each with its heading; each ends with an empty one."""
    sections: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith(_HEADING):
            sections.append([])
        sections[-1].append(line)
    for lines in sections:
        if lines and lines[-1]:
            lines.append("")
    return [lines for lines in sections if lines]


def _kept(lines: list[str], name: str) -> Iterator[tuple[str, list[str]]]:
    """(heading before it, lines with their marks) of each part."""
    heading = lines[0] if lines else ""
    part: list[str] | None = None
    for number, line in enumerate(lines, start=1):
        if line.strip() == BEGIN:
            if part is not None:
                raise PlanError(
                    f"{name}:{number}: a part by hand begins within another; put {END!r} before it"
                )
            part = [line]
        elif line.strip() == END:
            if part is None:
                raise PlanError(
                    f"{name}:{number}: {END!r} ends nothing; put {BEGIN!r} before what is to stay"
                )
            yield heading, [*part, line]
            part = None
        elif part is not None:
            part.append(line)
        elif line.startswith(_HEADING):
            heading = line
    if part is not None:
        raise PlanError(f"{name}: the last part by hand does not end; put {END!r} behind it")
