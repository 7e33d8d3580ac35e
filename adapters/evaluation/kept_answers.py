"""Answers on the disk while an evaluation runs, so that one that is interrupted goes on where it was.

A file of JSON lines: the first says what was asked of whom, each other one is an answer. It is there from the first
answer until the report is written, and never read as a report.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from adapters.data.example import Example
from adapters.errors import EvaluationError
from adapters.evaluation.answer import Answer, Likelihood, Unavailable
from adapters.evaluation.answerers.answerer import Answerer, Keep, Progress, keep_nothing
from adapters.evaluation.labels import LabelRule
from adapters.evaluation.question import Question

SCHEMA = "hotswap-partial-evaluation-1"


def key_of(parts: Mapping[str, object]) -> str:
    """What an evaluation asks of whom, as 64 hex digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Kept:
    by: str  # what the answerer called itself
    answer: Answer


class KeptAnswers:
    """The file at `path` for an evaluation with this key. Use it in a `with` statement."""

    def __init__(self, path: Path, key: str, *, force: bool, say: Callable[[str], None]) -> None:
        """Read what is there. Raises EvaluationError for answers of another evaluation, unless `force`."""
        self.path = path
        self._say = say
        self._key = key
        self._found: dict[str, _Kept] = {}
        self._stream: TextIO | None = None
        self._broken = False
        if not self._read() and not force:
            raise EvaluationError(
                f"{str(path)!r} holds the answers of another evaluation that was interrupted; give the same "
                "arguments to go on with it, --force to drop it, or name another --report"
            )

    def __len__(self) -> int:
        return len(self._found)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        if kind is not None and self._found and not self._broken:
            self._say(f"{len(self)} answers are kept in {self.path}; the same command goes on from them")

    def remove(self) -> None:
        """The report is written: nothing has to be gone on with."""
        self._close()
        self._found.clear()
        self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with contextlib.suppress(OSError):  # of what a full disk did not take before
                stream.close()

    def find(self, who: str, question: Question) -> _Kept | None:
        """What was answered before."""
        return self._found.get(_place(who, question))

    def keep(self, who: str, by: str, question: Question, answer: Answer) -> None:
        """Write an answer down. A disk that takes no more ends the keeping, and not the evaluation."""
        place = _place(who, question)
        self._found[place] = _Kept(by, answer)
        if self._broken:
            return
        try:
            if self._stream is None:
                self._begin()
            else:
                self._write(place)
        except OSError as error:
            self._broken = True
            self._close()
            self._say(f"answers are no longer kept in {self.path}: {error.strerror}")

    def _begin(self) -> None:
        """A new file with all that there is: the old one may end in half a line."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_name(f".{self.path.name}.new")
        self._stream = new.open("w", encoding="utf-8")
        self._stream.write(json.dumps({"schema": SCHEMA, "partial": True, "key": self._key}) + "\n")
        for place in self._found:
            self._write(place)
        new.replace(self.path)

    def _write(self, place: str) -> None:
        kept = self._found[place]
        if self._stream is not None:
            line = json.dumps({"place": place, "by": kept.by, "answer": asdict(kept.answer)})
            self._stream.write(line + "\n")
            self._stream.flush()

    def _read(self) -> bool:
        """False where the file is of something else."""
        try:
            head, *lines = self.path.read_text(encoding="utf-8").split("\n")
        except FileNotFoundError:
            return True
        except (OSError, UnicodeDecodeError) as error:
            raise EvaluationError(f"{str(self.path)!r} cannot be read: {error}; remove it") from None
        if _fields(head) != {"schema": SCHEMA, "partial": True, "key": self._key}:
            return False
        for line in lines:
            fields = _fields(line)
            if fields is None:  # the last line of a process that was killed
                break
            answer = fields["answer"]
            ids = answer["token_ids"]
            answer["token_ids"] = tuple(ids) if ids is not None else None
            self._found[fields["place"]] = _Kept(fields["by"], Answer(**answer))
        return True


class ResumingAnswerer:
    """Asks another one what is not kept yet, and keeps what it says."""

    def __init__(self, inner: Answerer, who: str, kept: KeptAnswers) -> None:
        self._inner = inner
        self._who = who
        self._kept = kept

    @property
    def description(self) -> str:
        return self._inner.description

    def answer(
        self,
        questions: Sequence[Question],
        *,
        rule: LabelRule | None,
        progress: Progress,
        keep: Keep = keep_nothing,
    ) -> list[Answer]:
        if not questions:
            return []
        found = [self._kept.find(self._who, question) for question in questions]
        # One is always asked: it tells who answers now.
        asked = [place for place, one in enumerate(found) if one is None] or [0]
        answers = [one.answer if one is not None else None for one in found]

        def note(number: int, answer: Answer) -> None:
            place = asked[number]
            answers[place] = answer
            self._kept.keep(self._who, self.description, questions[place], answer)
            keep(place, answer)

        before = len(questions) - len(asked)
        self._inner.answer(
            [questions[place] for place in asked],
            rule=rule,
            progress=lambda done, _: progress(before + done, len(questions)),
            keep=note,
        )
        strangers = {one.by for one in found if one is not None} - {self.description}
        if strangers:
            raise EvaluationError(
                f"the answers kept in {str(self._kept.path)!r} are of {', '.join(sorted(strangers))}, and now "
                f"{self.description} answers; remove the file to begin anew"
            )
        return [answer for answer in answers if answer is not None]

    def likelihoods(
        self, examples: Sequence[Example], *, progress: Progress
    ) -> list[Likelihood] | Unavailable:
        return self._inner.likelihoods(examples, progress=progress)


def _place(who: str, question: Question) -> str:
    """Who was asked what; the reference plays no part in the answer."""
    return f"{who} {key_of({'messages': question.as_dicts(), 'prompt': question.prompt})[:32]}"


def _fields(line: str) -> dict[str, Any] | None:
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None
