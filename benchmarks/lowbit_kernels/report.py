"""The measurements as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.statistics import paired_ratios, spread


def table(rows: Sequence[tuple[str, int, Mapping[str, Sequence[float]]]], reference: str) -> str:
    """`rows`: shape, tokens, seconds per call of each contender by round; a column per contender.

    A cell is the median in microseconds with least and greatest, and how many times faster than the reference
    in the same round (median).
    """
    titles = list(dict.fromkeys(title for _, _, seconds in rows for title in seconds))
    lines = [
        "| layer | tokens | " + " | ".join(titles) + " |",
        "| --- | --- |" + " --- |" * len(titles),
    ]
    for shape, tokens, seconds in rows:
        cells = [_cell(title, seconds, reference) for title in titles]
        lines.append(f"| {shape} | {tokens} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(title: str, seconds: Mapping[str, Sequence[float]], reference: str) -> str:
    if title not in seconds:
        return ""
    found = spread([each * 1e6 for each in seconds[title]])
    text = f"{found.median:.0f} us ({found.low:.0f}-{found.high:.0f})"
    if title == reference:
        return text
    ratios = paired_ratios(dict(enumerate(seconds[reference])), dict(enumerate(seconds[title])))
    return f"{text}, {spread(ratios).median:.1f}x" if ratios else text
