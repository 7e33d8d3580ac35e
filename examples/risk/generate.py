"""Writes the example data: a bank's notes on payments, each with its signs of risk and a level from 0 to 5.

The level is the number of signs (large amount, unfamiliar place, night hours, new payee, new device, rapid
repeats), at most 5. The same seed gives the same bytes.

    python -m examples.risk.generate [OUT_FOLDER]
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.risk.wording import AMOUNT_SIGN, ANSWER, CHINESE, ENGLISH, QUESTION, Language

SEED = 20261126
SIZES = {"train": 2000, "validation": 300, "test": 500}
CHINESE_SHARE = 0.1
MAX_LEVEL = 5
# How often a note has so many of the six signs.
WEIGHTS_BY_SIGNS = (15, 17, 18, 16, 14, 12, 8)
SHARE_OF_WORDS_FOR_TRAINING = 0.8


@dataclass(frozen=True, slots=True)
class Note:
    """A note, the signs that it shows, and the level that follows from them."""

    text: str
    signs: tuple[str, ...]

    @property
    def level(self) -> int:
        return min(len(self.signs), MAX_LEVEL)

    @property
    def answer(self) -> str:
        return ANSWER.format(reasons=", ".join(self.signs) or "none", level=self.level)

    def row(self) -> dict[str, Any]:
        """One line of the data set."""
        return {
            "messages": [
                {"role": "user", "content": QUESTION.format(note=self.text)},
                {"role": "assistant", "content": self.answer},
            ],
            "label": str(self.level),
        }


class NoteWriter:
    """Writes notes for one split; towns and purposes of the held-out splits never occur in training."""

    def __init__(self, seed: str, *, held_out: bool) -> None:
        self._random = random.Random(seed)  # noqa: S311 - data, not secrets
        self._held_out = held_out

    def notes(self) -> Iterator[Note]:
        """Notes without end."""
        while True:
            language = CHINESE if self._random.random() < CHINESE_SHARE else ENGLISH
            yield self._note(language)

    def _note(self, language: Language) -> Note:
        names = (AMOUNT_SIGN, *(sign.name for sign in language.signs))
        (count,) = self._random.choices(range(len(names) + 1), WEIGHTS_BY_SIGNS)
        shown = set(self._random.sample(names, count))
        facts = [
            self._fill(self._random.choice(sign.present if sign.name in shown else sign.absent), language)
            for sign in language.signs
        ]
        facts = [fact for fact in facts if fact]
        self._random.shuffle(facts)
        head = self._random.choice(language.heads).format(
            amount=self._amount(language, large=AMOUNT_SIGN in shown),
            purpose=self._word(language.purposes),
        )
        text = self._random.choice(language.separators).join([head, *facts]) + language.full_stop
        return Note(text, tuple(name for name in names if name in shown))

    def _fill(self, phrase: str, language: Language) -> str:
        draw = self._random
        return phrase.format(
            home=self._word(language.homes),
            place=self._word(language.places),
            hour_night=draw.randint(1, 4),
            hour_day=draw.randint(10, 19),
            hour_pm=draw.randint(1, 7),
            minute=f"{draw.randint(10, 59)}",
            count=draw.randint(4, 9),
        )

    def _amount(self, language: Language, *, large: bool) -> str:
        draw = self._random
        if large:
            value = draw.choice(
                [draw.randint(60, 99) * 100, draw.randint(10, 95) * 1000, draw.randint(6000, 48000)]
            )
        else:
            value = draw.choice([draw.randint(5, 99), draw.randint(100, 899), draw.randint(10, 80) * 10])
        currency = draw.choice(language.currencies)
        if language is CHINESE:
            return f"{value}{currency}"
        number = f"{value:,}" if draw.random() < 0.6 else str(value)
        return f"{number} {currency}" if draw.random() < 0.5 else f"{currency} {number}"

    def _word(self, words: tuple[str, ...]) -> str:
        border = round(len(words) * SHARE_OF_WORDS_FOR_TRAINING)
        return self._random.choice(words[border:] if self._held_out else words[:border])


def make_splits(seed: int = SEED) -> dict[str, list[Note]]:
    """All three splits. No note occurs twice, in one split or in two."""
    seen: set[str] = set()
    splits: dict[str, list[Note]] = {}
    for name, size in SIZES.items():
        notes: list[Note] = []
        for note in NoteWriter(f"{seed}-{name}", held_out=name != "train").notes():
            if len(notes) == size:
                break
            if note.text not in seen:
                seen.add(note.text)
                notes.append(note)
        splits[name] = notes
    return splits


def main(folder: Path) -> None:
    """Write train.jsonl, validation.jsonl and test.jsonl into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, notes in make_splits().items():
        lines = [json.dumps(note.row(), ensure_ascii=False) + "\n" for note in notes]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(f"{folder / f'{name}.jsonl'}: {len(notes)} notes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
