"""The texts that are sent: made to a length in tokens, or taken from a file."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.errors import LoadOptionError
from benchmarks.load.workload.words import WORDS

_TEXT_FIELDS = ("prompt", "text", "question", "instruction", "input")


@dataclass(frozen=True, slots=True)
class PromptSource:
    """Makes the prompt of a request from its number: nothing is kept, and every process makes the same.

    No two prompts begin alike, so that no prefix cache helps, unless `shared_prefix_tokens` asks for it.
    """

    seed: int
    overhead_tokens: int = 0  # that the server puts around a text: the chat template, BOS
    shared_prefix_tokens: int = 0
    texts: tuple[str, ...] = ()
    salt: str = ""  # other texts of the same lengths, for a server that sees one schedule twice

    def prompt(self, number: int, tokens: int) -> str:
        """The prompt of request `number`, of about `tokens` tokens by the server's count; a text from a file has
        the length that it has."""
        if self.texts:
            return self.texts[number % len(self.texts)]
        draw = random.Random(f"{self.seed}{self.salt}/{number}")  # noqa: S311 - repeatable, nothing to guess
        words = max(1, tokens - self.overhead_tokens - self.shared_prefix_tokens)
        own = " ".join(draw.choices(WORDS, k=words))
        if not self.shared_prefix_tokens:
            return own
        shared = random.Random(f"{self.seed}/prefix")  # noqa: S311
        return " ".join(shared.choices(WORDS, k=self.shared_prefix_tokens)) + " " + own


def read_prompts(path: Path) -> tuple[str, ...]:
    """Texts of a JSON-lines file: the field `prompt`, `text`, `question`, `instruction` or `input`, or the last
    message of the user in `messages`. Raises LoadOptionError with the lines at fault.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LoadOptionError(f"the prompts {str(path)!r} cannot be read: {error}") from None
    found: list[str] = []
    problems: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(_text_of(json.loads(line)))
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    if problems:
        more = f"; and {len(problems) - 5} more lines" if len(problems) > 5 else ""
        raise LoadOptionError(f"the prompts {str(path)!r} have bad lines: {'; '.join(problems[:5])}{more}")
    if not found:
        raise LoadOptionError(f"the prompts {str(path)!r} hold no text")
    return tuple(found)


def _text_of(fields: object) -> str:
    if isinstance(fields, str):
        return fields
    if not isinstance(fields, dict):
        raise ValueError("it is neither text nor a JSON object")
    for name in _TEXT_FIELDS:
        value = fields.get(name)
        if isinstance(value, str) and value.strip():
            return value
    messages = fields.get("messages")
    if isinstance(messages, list):
        for message in reversed(messages):
            if isinstance(message, dict) and message.get("role") == "user" and message.get("content"):
                return str(message["content"])
    raise ValueError(f"it has no text in {', '.join(_TEXT_FIELDS)} or messages")
