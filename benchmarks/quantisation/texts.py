"""The texts that quality is measured on, as rows of tokens; none of them was calibrated or trained on."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from bases.resolve import ResolvedBase
from benchmarks.quantisation.plan import ReportPlan
from quantize.calibration.make import make_calibration

_CHINESE = re.compile(r"[\u4e00-\u9fff]")


TITLES = {
    "chat": "held-out chat",
    "notes": "the task's test notes",
    "chinese": "the task's test notes in Chinese",
}


@dataclass(frozen=True, slots=True)
class Text:
    """Rows of token ids of the text of that name."""

    name: str
    rows: tuple[tuple[int, ...], ...]

    @property
    def title(self) -> str:
        """For people."""
        return TITLES[self.name]


def read_texts(base: ResolvedBase, plan: ReportPlan, *, folder: Path) -> list[Text]:
    """Held-out chat of the shipped calibration set; the task's notes with their answers, by language.

    Raises CalibrationError, DataError.
    """
    texts = [_text(base, plan, "chat", None)]
    lines = plan.data.read_text(encoding="utf-8").splitlines()
    chinese = [line for line in lines if _CHINESE.search(_decoded(line))]
    other = [line for line in lines if line.strip() and line not in set(chinese)]
    for name, kept in (("notes", other), ("chinese", chinese)):
        if kept:
            path = folder / f"text-{name}.jsonl"
            path.write_text("\n".join(kept) + "\n", encoding="utf-8")
            texts.append(_text(base, plan, name, path))
    return texts


def _text(base: ResolvedBase, plan: ReportPlan, name: str, path: Path | None) -> Text:
    made = make_calibration(
        base,
        num_samples=1,
        row_tokens=plan.row_tokens,
        evaluation=[path] if path is not None else (),
        answers="reference",
        progress=_silent,
    )
    rows = [tuple(row) for row in made.held_out_rows if len(row) > 1]
    return Text(name, tuple(rows[: plan.quality_rows]))


def _decoded(line: str) -> str:
    """A line as text: JSON may hide what is not ASCII behind escapes."""
    try:
        return json.dumps(json.loads(line), ensure_ascii=False)
    except ValueError:
        return line


def _silent(text: str) -> None:
    """What is told of calibration does not concern measuring."""
