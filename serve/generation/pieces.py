"""The tokens of a stream, each with the text that it brought. Knows nothing of HTTP.

A token brings no text while it is part of a character, or while a reviewer holds the text back. It leaves here
when its text may go out, so that the texts of a stream are the answer, and no token is ahead of the review.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from serve.engine.protocol import Delta, TokenLogprob
from serve.errors import GenerationFailedError


@dataclass(frozen=True, slots=True)
class Piece:
    """One token and its text."""

    token: TokenLogprob
    text: str
    special: bool  # not part of the answer: `text` is the token's own name


class Pieces:
    """The tokens of one sequence in order; `special_ids` are those that are no text."""

    def __init__(self, special_ids: frozenset[int]) -> None:
        self.text = ""  # what may go out, from the first token on
        self._special_ids = special_ids
        self._sent_chars = 0
        self._waiting: deque[tuple[TokenLogprob, int]] = deque()
        self._last: TokenLogprob | None = None

    def add(self, delta: Delta, released: str) -> None:
        """Take what was generated, and the text that may go out because of it."""
        self._waiting.extend(zip(delta.logprobs, _shares(delta), strict=True))
        self.text += released

    def due(self) -> Iterator[Piece]:
        """The tokens whose text may go out."""
        while self._waiting and self._sent_chars + self._waiting[0][1] <= len(self.text):
            token, num_chars = self._waiting.popleft()
            yield self._piece(token, self.text[self._sent_chars : self._sent_chars + num_chars])

    def rest(self, released: str) -> list[Piece]:
        """The tokens that are left at the end, at least one; the last one has all text that is left.

        Raises GenerationFailedError when there never was a token.
        """
        self.text += released
        pieces = []
        while len(self._waiting) > 1:
            token, num_chars = self._waiting.popleft()
            pieces.append(self._piece(token, self.text[self._sent_chars : self._sent_chars + num_chars]))
        # An end without a token of its own: the token before it stands in, for whoever asks which was the last.
        last = self._waiting.popleft()[0] if self._waiting else self._last
        if last is None:
            raise GenerationFailedError("the engine ended this request without a token")
        return [*pieces, self._piece(last, self.text[self._sent_chars :])]

    def _piece(self, token: TokenLogprob, text: str) -> Piece:
        self._last = token
        self._sent_chars += len(text)
        special = not text and token.token_id in self._special_ids
        return Piece(token, token.text if special else text, special)


def _shares(delta: Delta) -> Sequence[int]:
    """How many characters of a delta's text each of its tokens brought."""
    texts = [token.text for token in delta.logprobs]
    if len(texts) > 1 and "".join(texts) == delta.text:
        return [len(text) for text in texts]
    return [0] * (len(texts) - 1) + [len(delta.text)] if texts else []
