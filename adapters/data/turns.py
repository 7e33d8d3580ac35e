"""What a chat template writes around an assistant's answer, and which token ends it for the engine.

Most templates mark no assistant turns, so the answer is found by rendering a sentinel in its place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.errors import DataError
from bases.codec import TokenizerCodec
from bases.folder import read_json_object

_SENTINEL = "\ue0f4hotswap\ue0f4"
_PADDING = "\n \n"
_TAG = re.compile(r"<[A-Za-z_]+>")


@dataclass(frozen=True, slots=True)
class Turn:
    """How a template treats an answer that follows a given series of roles.

    `lead` is text that the template puts between the generation prompt and the answer, and that the engine would
    therefore have to generate; `opened` the tag, such as "<think>", with which the generation prompt itself ends.
    `end_ids` closes the answer for the engine. `foreign_end` is the text of a token that the template closes the
    turn with though the engine does not stop at it; `end_ids` then goes on to one at which it does.
    """

    lead: str
    opened: str
    trims_left: bool
    trims_right: bool
    end_ids: tuple[int, ...]
    foreign_end: str | None

    def target(self, answer: str) -> tuple[str, str]:
        """What the engine has to generate before the end: template text, then the answer's own text."""
        if self.trims_left:
            answer = answer.lstrip()
        if self.trims_right:
            answer = answer.rstrip()
        stripped = answer.lstrip()
        if self.opened and stripped.startswith(self.opened):  # written by the generation prompt already
            return "", stripped[len(self.opened) :].lstrip()
        lead_tag = _TAG.match(self.lead)
        if lead_tag and stripped.startswith(lead_tag.group()):  # the data brings its own
            return "", answer
        return self.lead, answer


def end_token_ids(base_folder: Path, tokenizer: Any) -> tuple[int, ...]:
    """Ids at which the engine stops, the tokenizer's own first. Raises BaseInvalidError for a broken file.

    vLLM stops at the tokenizer's end token and at those of generation_config.json, in whose absence it reads
    config.json.
    """
    found = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    for name in ("generation_config.json", "config.json"):
        file = base_folder / name
        if not file.is_file():
            continue
        named = read_json_object(file).get("eos_token_id")
        listed = named if isinstance(named, list) else [named]
        found += [token for token in listed if isinstance(token, int)]
        break
    return tuple(dict.fromkeys(found))


def read_turn(codec: TokenizerCodec, tokenizer: Any, roles: Sequence[str], stops: Sequence[int]) -> Turn:
    """How the base's template treats an assistant's answer after messages of `roles`.

    Raises DataError when the turn ends in no token that could stop the engine, ChatTemplateError when the template
    refuses the roles.
    """
    before = [{"role": role, "content": "x"} for role in roles]
    prompt = codec.render_marked(before)
    head, tail = _around_answer(codec, before, _SENTINEL)
    padded_head, padded_tail = _around_answer(codec, before, f"{_PADDING}{_SENTINEL}{_PADDING}")
    bare = codec.render_marked(before, add_generation_prompt=False)
    opening = prompt[len(bare) :] if prompt.startswith(bare) else prompt[-200:]
    tags = list(_TAG.finditer(opening.rstrip()))
    opened = tags[-1].group() if tags and tags[-1].end() == len(opening.rstrip()) else ""
    end_ids, foreign = _end_of_turn(codec, tokenizer, tail, stops)
    return Turn(
        lead=head[len(prompt) :] if head.startswith(prompt) else "",
        opened=opened,
        trims_left=padded_head == head,
        trims_right=padded_tail == tail,
        end_ids=end_ids,
        foreign_end=foreign,
    )


def _around_answer(codec: TokenizerCodec, before: list[dict[str, str]], content: str) -> tuple[str, str]:
    """The rendered conversation up to the sentinel in the answer and after it."""
    answer = {"role": "assistant", "content": content}
    rendered = codec.render_marked([*before, answer], add_generation_prompt=False)
    head, found, tail = rendered.rpartition(_SENTINEL)
    if not found:
        raise DataError(
            "The base's chat template does not write the assistant's content as it is given, so that what is to be "
            "learned cannot be found. Use prompt and completion instead of messages."
        )
    return head, tail


def _end_of_turn(
    codec: TokenizerCodec, tokenizer: Any, tail: str, stops: Sequence[int]
) -> tuple[tuple[int, ...], str | None]:
    """Token ids after an answer, as far as the first at which the engine stops."""
    ids = codec.encode_rendered(tail)
    for position, token in enumerate(ids):
        if token in stops:
            return tuple(ids[: position + 1]), None
    for position, token in enumerate(ids):
        if token in tokenizer.added_tokens_decoder and stops:
            return (*ids[: position + 1], stops[0]), tokenizer.convert_ids_to_tokens(token)
    written = f"writes {tail!r} after an answer" if tail else "writes nothing after an answer"
    known = ", ".join(repr(tokenizer.convert_ids_to_tokens(token)) for token in stops) or "none"
    raise DataError(
        f"The base's chat template {written}, which holds no token that ends a turn, and an adapter trained like "
        f"that never stops. The engine stops at: {known}. Write one of them after the assistant's content in "
        "chat_template.jinja, or name the template's own end as eos_token_id in generation_config.json."
    )
