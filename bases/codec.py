"""Prompts to token ids with the base's own tokenizer, treating what a user wrote as text.

A tokenizer reads "<|im_end|>" inside a user's message as the control token and so lets the user end the turn and
speak as somebody else. Here special tokens come from the chat template alone: their text inside a prompt or a
message is tokenised as the characters it consists of. Some families mark turns with added tokens that are not
special (DeepSeek's "<｜User｜>"); those that the chat template writes are control tokens too, except in what the
model itself says, where they may be tool calls.

Training and serving encode with this same class, so that an adapter is asked what it was taught.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bases.errors import ChatTemplateError

# Stand-ins for special-token text while a template is rendered: private-use characters, which no template knows.
_MARK_START, _MARK_END = "\ue0f0", "\ue0f1"
_MARKED = re.compile(f"{_MARK_START}([0-9]+){_MARK_END}")
_REASONING_TAGS = frozenset({"<think>", "</think>"})  # templates look for them in earlier answers


class TokenizerCodec:
    """Encodes with two copies of one fast tokenizer: one that knows special tokens and one that does not.

    The flag that tells them apart belongs to the tokenizer object, so that a single shared object could be
    switched by one thread while another encodes.
    """

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer` is a transformers tokenizer with a `tokenizers` backend."""
        from tokenizers import Tokenizer

        self._template = tokenizer
        serialised = tokenizer.backend_tokenizer.to_str()
        special = {str(t) for t in tokenizer.added_tokens_decoder.values() if t.special} | set(
            tokenizer.all_special_tokens
        )
        turns = _turn_marks(tokenizer) - special
        self._control = Tokenizer.from_str(serialised)
        self._literal = Tokenizer.from_str(_with_special(serialised, turns))
        for copy in (self._control, self._literal):
            copy.no_truncation()
            copy.no_padding()
        self._control.encode_special_tokens = False
        self._literal.encode_special_tokens = True
        # A user's own stand-in characters are text too, and get stand-ins like everything else.
        self._special = _any_of(special | {_MARK_START, _MARK_END})
        self._special_or_turn = _any_of(special | turns | {_MARK_START, _MARK_END})
        self.longest_token_chars = max(map(len, tokenizer.get_vocab()), default=1)
        added = {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.special_ids = frozenset(added | set(tokenizer.all_special_ids))

    def encode(self, text: str, *, parse_special: bool) -> list[int]:
        encoder = self._control if parse_special else self._literal
        return list(encoder.encode(text).ids)

    def encode_chat(
        self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True
    ) -> list[int]:
        """Token ids of a conversation, ready for the assistant's turn. Raises ChatTemplateError."""
        return self.encode_rendered(self.render_marked(messages, add_generation_prompt=add_generation_prompt))

    def render_marked(
        self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True
    ) -> str:
        """The conversation as the template writes it, contents marked (see `mark`): for `encode_rendered`.

        Raises ChatTemplateError when there is no template or it refuses the messages.
        """
        from jinja2.exceptions import TemplateError

        if not getattr(self._template, "chat_template", None):
            raise ChatTemplateError("this base model has no chat template")
        marked = [
            {**message, "content": self.mark(message["content"], role=message["role"])}
            for message in messages
        ]
        try:
            return str(
                self._template.apply_chat_template(
                    marked, tokenize=False, add_generation_prompt=add_generation_prompt
                )
            )
        except (TemplateError, ValueError, TypeError, KeyError) as error:
            reason = str(error)[:200] or type(error).__name__
            raise ChatTemplateError(
                f"the base's chat template does not take these messages: {reason}"
            ) from None

    def mark(self, text: str, *, role: str = "user") -> str:
        """Put stand-ins in place of special-token text, so that it survives a template as text."""

        def stand_in(match: re.Match[str]) -> str:
            codes = "".join(f"{ord(char):06d}" for char in match.group())
            return f"{_MARK_START}{codes}{_MARK_END}"

        return (self._special if role == "assistant" else self._special_or_turn).sub(stand_in, text)

    @staticmethod
    def has_marks(text: str) -> bool:
        """Whether `mark` left stand-ins in a text."""
        return _MARKED.search(text) is not None

    def encode_rendered(self, rendered: str) -> list[int]:
        """Token ids of a rendered template: its special tokens are control, stand-ins are text."""
        ids: list[int] = []
        position = 0
        for match in _MARKED.finditer(rendered):
            ids += self._control.encode(rendered[position : match.start()], add_special_tokens=False).ids
            codes = match.group(1)
            literal = "".join(chr(int(codes[i : i + 6])) for i in range(0, len(codes), 6))
            ids += self._literal.encode(literal, add_special_tokens=False).ids
            position = match.end()
        ids += self._control.encode(rendered[position:], add_special_tokens=False).ids
        return ids


def _turn_marks(tokenizer: Any) -> set[str]:
    """The added tokens that the chat template writes by name, special or not."""
    template = getattr(tokenizer, "chat_template", None)
    text = "".join(template.values()) if isinstance(template, dict) else template or ""
    return {str(t) for t in tokenizer.added_tokens_decoder.values() if str(t) in text} - _REASONING_TAGS


def _with_special(serialised: str, tokens: set[str]) -> str:
    """A serialised tokenizer in which the added `tokens` are special."""
    if not tokens:
        return serialised
    data = json.loads(serialised)
    for token in data["added_tokens"]:
        token["special"] = token["special"] or token["content"] in tokens
    return json.dumps(data)


def _any_of(texts: set[str]) -> re.Pattern[str]:
    """A pattern that finds the longest of `texts` at each place."""
    return re.compile("|".join(map(re.escape, sorted(filter(None, texts), key=len, reverse=True))))
