"""A file of reference answers, which grows line by line, so that a run that is interrupted goes on.

JSON lines. The first says what was asked of what (`Identity`); then, in any order, what the reference's engine
answered (`Answered`) and what the same tokens are worth exactly (`Judged`), one line for each question.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from benchmarks.fast_path.errors import ReferenceFileError, StaleReferenceError
from benchmarks.fast_path.questions import Question


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Identity(_Line):
    """What decides the answers, beside the questions."""

    kind: Literal["reference"] = "reference"
    base_fingerprint: str
    dtype: str
    patches: str  # --cpu-patches
    num_tokens: int
    adapters: dict[str, str]  # name -> sha256 of its weights' file
    packages: dict[str, str]  # name -> version


class Answered(_Line):
    """A greedy answer. For each token the likeliest ones, the chosen one first, with natural log probabilities."""

    kind: Literal["answer"] = "answer"
    number: int
    adapter: str | None
    prompt_sha256: str
    candidates: tuple[tuple[int, ...], ...]
    logprobs: tuple[tuple[float, ...], ...]

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The answer."""
        return tuple(each[0] for each in self.candidates)


class Judged(_Line):
    """Exact log probabilities of the candidates of the answer of that number, after the same text."""

    kind: Literal["exact"] = "exact"
    number: int
    logprobs: tuple[tuple[float, ...], ...]


_LINES: TypeAdapter[Identity | Answered | Judged] = TypeAdapter(
    Annotated[Identity | Answered | Judged, Field(discriminator="kind")]
)


class ReferenceFile:
    """The lines of one file, in memory and on disk."""

    def __init__(self, path: Path, identity: Identity) -> None:
        self.path = path
        self.identity = identity
        self.answers: dict[int, Answered] = {}
        self.judged: dict[int, Judged] = {}

    @classmethod
    def begin(cls, path: Path, identity: Identity, questions: Sequence[Question]) -> ReferenceFile:
        """Make the file, or take up one that was begun for the same. A line that was cut off is removed.

        Raises ReferenceFileError, StaleReferenceError.
        """
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(identity.model_dump_json() + "\n", encoding="utf-8")
        found = cls.read(path, identity, questions)
        whole_bytes = path.read_bytes().rfind(b"\n") + 1
        with path.open("r+b") as file:
            file.truncate(whole_bytes)
        return found

    @classmethod
    def read(cls, path: Path, identity: Identity, questions: Sequence[Question]) -> ReferenceFile:
        """What the file holds. Raises ReferenceFileError, and StaleReferenceError where it is of something else."""
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise ReferenceFileError(
                f"{path} cannot be read ({error.strerror}); `--reference {path}` makes it"
            ) from None
        lines = raw[: raw.rfind(b"\n") + 1].splitlines()
        found: ReferenceFile | None = None
        for place, line in enumerate(lines, 1):
            try:
                entry = _LINES.validate_json(line)
            except ValidationError as error:
                raise ReferenceFileError(f"{path}, line {place}: {error.errors()[0]['msg']}") from None
            if isinstance(entry, Identity) != (place == 1):
                raise ReferenceFileError(f"{path}, line {place}: the first line alone says what was asked")
            if isinstance(entry, Identity):
                _expect_same(path, entry, identity)
                found = cls(path, entry)
            elif found is not None:
                found._take(entry, place)
        if found is None:
            raise ReferenceFileError(
                f"{path} holds no whole line; remove it, and `--reference {path}` makes it"
            )
        _expect_same_questions(found, questions)
        return found

    def append(self, entry: Answered | Judged) -> None:
        """Keep it, on disk at once."""
        with self.path.open("ab") as file:
            file.write(entry.model_dump_json().encode() + b"\n")
        self._take(entry, None)

    def unanswered(self, questions: Sequence[Question]) -> list[Question]:
        """Those that have no answer here."""
        return [each for each in questions if each.number not in self.answers]

    def unjudged(self, questions: Sequence[Question]) -> list[Question]:
        """Those that have an answer, and no exact log probabilities."""
        return [each for each in questions if each.number in self.answers and each.number not in self.judged]

    def complete(self, questions: Sequence[Question]) -> list[Question]:
        """Those that have both."""
        return [each for each in questions if each.number in self.answers and each.number in self.judged]

    def _take(self, entry: Answered | Judged, place: int | None) -> None:
        where = f"{self.path}, line {place}" if place else str(self.path)
        if isinstance(entry, Answered):
            if [len(each) for each in entry.candidates] != [len(each) for each in entry.logprobs]:
                raise ReferenceFileError(f"{where}: candidates and their log probabilities are not as many")
            self.answers[entry.number] = entry
            return
        answer = self.answers.get(entry.number)
        if answer is None or [len(each) for each in answer.logprobs] != [
            len(each) for each in entry.logprobs
        ]:
            raise ReferenceFileError(f"{where}: no answer of number {entry.number} that it could judge")
        self.judged[entry.number] = entry


def _expect_same(path: Path, found: Identity, wanted: Identity) -> None:
    old, new = found.model_dump(), wanted.model_dump()
    differing = [f"{name}: {old[name]} there, {new[name]} here" for name in new if old[name] != new[name]]
    if differing:
        raise StaleReferenceError(
            f"{path} holds answers of something else ({'; '.join(differing)}). Name another file, or remove it "
            "and compute it again."
        )


def _expect_same_questions(file: ReferenceFile, questions: Sequence[Question]) -> None:
    for question in questions:
        answer = file.answers.get(question.number)
        if answer is None:
            continue
        if (answer.prompt_sha256, answer.adapter) != (question.sha256, question.adapter):
            raise StaleReferenceError(
                f"{file.path} holds the answer to another prompt or adapter in place of question "
                f"{question.number}. Name another file, or remove it and compute it again."
            )
