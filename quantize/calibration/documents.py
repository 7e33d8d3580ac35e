"""Examples to token ids as training encodes them, whole: one document per sequence."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.data.encode import ExampleEncoder
from adapters.data.example import Example
from bases.progress import Progress
from bases.resolve import ResolvedBase
from quantize.calibration.default_set import as_plain_text
from quantize.calibration.own_answers import own_answers

# Of each of the base's own answers.
OWN_ANSWER_TOKENS = 64
_OWN_ANSWER_SEED = 0
_NO_LIMIT = 1 << 60
_BATCH = 256


@dataclass(frozen=True, slots=True)
class Documents:
    """Token ids, and for each document the index of the example it belongs to."""

    ids: list[tuple[int, ...]]
    examples: list[int]

    @property
    def num_tokens(self) -> int:
        """In all documents together."""
        return sum(map(len, self.ids))


class DocumentEncoder:
    """Encodes with the tokenizer and the chat template of one base."""

    def __init__(self, base: ResolvedBase) -> None:
        """Raises BaseInvalidError when the base has no fast tokenizer."""
        self._base = base
        self._encoder = ExampleEncoder(base.path, max_length_tokens=_NO_LIMIT)

    @property
    def has_template(self) -> bool:
        """Whether the base has a chat template."""
        return bool(getattr(self._encoder.tokenizer, "chat_template", None))

    def shipped(self, examples: Sequence[Example]) -> list[Example]:
        """The shipped conversations in a form that this base can be given."""
        return list(examples) if self.has_template else as_plain_text(examples)

    def encode(self, examples: Sequence[Example], *, most_tokens: int | None = None) -> Documents:
        """Documents of the examples in order, of as many as make `most_tokens` tokens where that is given.

        Raises DataError for an example that the template does not take.
        """
        documents = Documents([], [])
        for start in range(0, len(examples), _BATCH):
            encoded = self._encoder.encode_whole(examples[start : start + _BATCH])
            for index, sequences in enumerate(encoded, start=start):
                documents.ids.extend(sequence.input_ids for sequence in sequences)
                documents.examples.extend([index] * len(sequences))
            if most_tokens is not None and documents.num_tokens >= most_tokens:
                break
        return documents

    def prompts(self, examples: Sequence[Example]) -> list[list[int]]:
        """What each example asks, up to where its last answer begins; texts that ask nothing are left out."""
        return [prompt for example in examples if (prompt := self._encoder.encode_prompt(example))]

    def answered(
        self, examples: Sequence[Example], *, num_tokens: int, home: Path, progress: Progress
    ) -> Documents:
        """Some of the examples, with the base's own words in place of the last answer: `num_tokens` and a bit more,
        or all examples."""
        order = list(range(len(examples)))
        random.Random(_OWN_ANSWER_SEED).shuffle(order)  # noqa: S311 - a choice of examples, no secret
        prompts = [self._encoder.encode_prompt(examples[index]) for index in order]
        answers = own_answers(
            self._base,
            prompts,
            num_tokens=num_tokens,
            max_answer_tokens=OWN_ANSWER_TOKENS,
            seed=_OWN_ANSWER_SEED,
            home=home,
            progress=progress,
        )
        documents = [(*prompt, *answer) for prompt, answer in zip(prompts, answers, strict=False)]
        return Documents(documents, order[: len(documents)])

    def warnings(self) -> tuple[str, ...]:
        """What is unusual about the template, as far as the examples so far have used it."""
        return self._encoder.warnings()
