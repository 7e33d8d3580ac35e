"""The gateway's codec for whole data sets: many texts at a time, and what a model says in answer to a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bases.codec import TokenizerCodec

# Text before an answer while it is tokenised, where a tokenizer would else invent a space at its beginning.
_ANCHORS = ("\n", ".", "x")


class BatchCodec(TokenizerCodec):
    """The gateway's codec, many texts at a time, and with text that continues another."""

    def __init__(self, tokenizer: Any) -> None:
        from tokenizers import Tokenizer

        super().__init__(tokenizer)
        # What the model says may hold added tokens that are not special, such as those around a tool call, also
        # where the chat template writes them and they are mere text in what a user says.
        self._spoken = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._spoken.no_truncation()
        self._spoken.no_padding()
        self._spoken.encode_special_tokens = True
        first = "".join(self._spoken.encode("a", add_special_tokens=False).tokens[:1])
        self._invents_space = first.startswith(("▁", "Ġ"))

    def encode_prompts(self, prompts: Sequence[tuple[str, bool]]) -> list[list[int]]:
        """As `encode` for raw prompts and as `encode_rendered` for the others."""
        plain = [text for text, raw in prompts if not raw and not self.has_marks(text)]
        literal = [text for text, raw in prompts if raw]
        controls = iter(self._control.encode_batch_fast(plain, add_special_tokens=False))
        literals = iter(self._literal.encode_batch_fast(literal))
        ids: list[list[int]] = []
        for text, raw in prompts:
            if raw:
                ids.append(next(literals).ids)
            elif self.has_marks(text):
                ids.append(self.encode_rendered(text))
            else:
                ids.append(next(controls).ids)
        return ids

    def encode_answers(self, answers: Sequence[tuple[str, str]]) -> list[list[int]]:
        """Template text, whose special tokens are control, and then text, as they follow a prompt."""
        if self._invents_space:
            return [self._continue(lead, answer) for lead, answer in answers]
        texts = self._spoken.encode_batch_fast([answer for _, answer in answers], add_special_tokens=False)
        return [
            self._continue(lead, answer) if lead else text.ids
            for (lead, answer), text in zip(answers, texts, strict=True)
        ]

    def _continue(self, lead: str, answer: str) -> list[int]:
        if not lead or self._special.search(lead):
            before = self._control.encode(lead, add_special_tokens=False).ids if lead else []
            return [*before, *self._after_anchor(answer)]
        return self._after_anchor(lead + answer)

    def _after_anchor(self, text: str) -> list[int]:
        """Ids of text that follows other text, without the space that some tokenizers put before a first word."""
        if self._invents_space:
            for anchor in _ANCHORS:
                alone: list[int] = self._spoken.encode(anchor, add_special_tokens=False).ids
                both: list[int] = self._spoken.encode(anchor + text, add_special_tokens=False).ids
                if both[: len(alone)] == alone:
                    return both[len(alone) :]
        ids: list[int] = self._spoken.encode(text, add_special_tokens=False).ids
        return ids
