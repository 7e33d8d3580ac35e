"""Examples to token ids and the mask of what is learned.

A training sequence is the prompt exactly as the gateway feeds it to the engine, then exactly what the engine would
have to generate: the answer as text and the token at which it stops. No template needs generation markers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from adapters.data.batch_codec import BatchCodec
from adapters.data.example import Example, Origin
from adapters.data.step import Finding
from adapters.data.turns import Turn, end_token_ids, read_turn
from adapters.errors import DataError
from bases.errors import BaseInvalidError, ChatTemplateError

_BATCH = 1024


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """One training sequence. `supervised[i]` says that token i is learned, which makes it the label at i."""

    input_ids: tuple[int, ...]
    supervised: tuple[bool, ...]
    task: str
    origin: Origin

    @property
    def num_supervised(self) -> int:
        """Learned tokens that something precedes: the first of a sequence is predicted from nothing."""
        return sum(self.supervised[1:])


@dataclass(frozen=True, slots=True)
class Encoded:
    """A data set as token ids, and what did not go in. `findings` names the over-long examples."""

    examples: tuple[EncodedExample, ...]
    num_truncated: int
    num_dropped: int
    findings: tuple[Finding, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Piece:
    """One prompt and what is learned after it, as text. `raw` prompts know no control tokens."""

    prompt: str
    raw: bool
    lead: str
    answer: str
    end_ids: tuple[int, ...]


class ExampleEncoder:
    """Encodes examples with the tokenizer and chat template of a base, through the gateway's own codec."""

    def __init__(
        self,
        base_folder: Path,
        *,
        max_length_tokens: int,
        on_long: Literal["drop", "truncate"] = "drop",
    ) -> None:
        """Sequences longer than `max_length_tokens` are left out, or lose the end of their last answer.

        Raises BaseInvalidError when the folder holds no fast tokenizer.
        """
        from transformers import AutoTokenizer

        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(base_folder, local_files_only=True)
            self._codec = BatchCodec(self.tokenizer)
        except (OSError, ValueError, AttributeError) as error:
            raise BaseInvalidError(f"{base_folder} holds no fast tokenizer: {str(error)[:200]}") from None
        self.max_length_tokens = max_length_tokens
        self.on_long = on_long
        self._stops = end_token_ids(base_folder, self.tokenizer)
        self._turns: dict[tuple[str, ...], Turn] = {}

    @property
    def end_token_ids(self) -> frozenset[int]:
        """Ids at which the engine stops."""
        return frozenset(self._stops)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids, control tokens shown."""
        text = self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)

    def encode_prompt(self, example: Example) -> list[int]:
        """What the gateway feeds the engine to be answered with the last answer. Raises DataError."""
        if example.shape == "text":
            return self._codec.encode("", parse_special=False)
        if example.shape == "completion":
            return self._codec.encode(example.prompt or "", parse_special=False)
        return self._codec.encode_rendered(self._render(example, _assistant_turns(example)[-1]))

    def encode(self, example: Example) -> list[EncodedExample]:
        """Sequences of one example within the length limit: one, or one per assistant turn where the template
        writes a turn's past otherwise than the turn itself was asked for. Raises DataError."""
        return [fitted for fitted in map(self.fit, self.encode_whole([example])[0]) if fitted is not None]

    def encode_whole(self, examples: Sequence[Example]) -> list[list[EncodedExample]]:
        """Sequences of each example, whatever their length. Raises DataError."""
        pieces = [self._pieces(example) for example in examples]
        flat = [piece for of_example in pieces for piece in of_example]
        prompts = self._codec.encode_prompts([(piece.prompt, piece.raw) for piece in flat])
        answers = self._codec.encode_answers([(piece.lead, piece.answer) for piece in flat])
        encoded = iter(zip(prompts, answers, flat, strict=True))
        return [
            _join(example, islice(encoded, len(of_example)))
            for example, of_example in zip(examples, pieces, strict=True)
        ]

    def fit(self, example: EncodedExample) -> EncodedExample | None:
        """The sequence within the length limit, or None where it is dropped or nothing learned would be left."""
        if len(example.input_ids) <= self.max_length_tokens:
            return example
        if self.on_long == "drop":
            return None
        cut = EncodedExample(
            example.input_ids[: self.max_length_tokens],
            example.supervised[: self.max_length_tokens],
            example.task,
            example.origin,
        )
        return cut if cut.num_supervised else None

    def warnings(self) -> tuple[str, ...]:
        """What is unusual about the template, as far as the examples so far have used it."""
        found: dict[str, None] = {}
        for turn in self._turns.values():
            if turn.opened:
                found[
                    f"The generation prompt ends with {turn.opened!r}: what an answer says is learned as its "
                    f"content, as far as {turn.opened.replace('<', '</')!r} in the answer closes it."
                ] = None
            if turn.foreign_end is not None:
                stop = self.tokenizer.convert_ids_to_tokens(self._stops[0])
                found[
                    f"The chat template ends a turn with {turn.foreign_end!r}, at which the engine does not stop; "
                    f"{stop!r} is learned after it. To spare that token, name {turn.foreign_end!r} as eos_token_id "
                    "in generation_config.json."
                ] = None
        return tuple(found)

    def _pieces(self, example: Example) -> list[_Piece]:
        if example.shape == "chat":
            return [self._chat_piece(example, turn) for turn in _assistant_turns(example)]
        if not self._stops:
            raise DataError(
                f"{example.origin}: the base names no end token, and an adapter trained without one never stops. "
                "Name eos_token_id in the base's generation_config.json."
            )
        end = self._stops[:1]
        if example.shape == "text":
            return [_Piece(example.text or "", True, "", "", end)]
        return [_Piece(example.prompt or "", True, "", example.completion or "", end)]

    def _chat_piece(self, example: Example, index: int) -> _Piece:
        prompt = self._render(example, index)
        turn = self._turn(example, index)
        lead, answer = turn.target(example.messages[index].content)
        return _Piece(prompt, False, lead, answer, turn.end_ids)

    def _render(self, example: Example, num_messages: int) -> str:
        messages = [
            {"role": message.role, "content": message.content} for message in example.messages[:num_messages]
        ]
        try:
            return self._codec.render_marked(messages)
        except ChatTemplateError as error:
            raise DataError(
                f"{example.origin}: {error}. Change the messages, or choose another base."
            ) from None

    def _turn(self, example: Example, index: int) -> Turn:
        roles = tuple(message.role for message in example.messages[:index])
        if roles not in self._turns:
            try:
                self._turns[roles] = read_turn(self._codec, self.tokenizer, roles, self._stops)
            except (ChatTemplateError, DataError) as error:
                raise DataError(f"{example.origin}: {error}") from None
        return self._turns[roles]


def encode_all(examples: Sequence[Example], encoder: ExampleEncoder) -> Encoded:
    """Encode a data set. Raises DataError when nothing, or everything, would be learned, or a turn has no end.

    Plain text may be learned whole; answers to prompts may not, since there is a prompt to be told apart.
    """
    kept: list[EncodedExample] = []
    findings: list[Finding] = []
    num_truncated = 0
    answer_tokens = answer_supervised = 0
    for batch in _batches(examples):
        for example, sequences in zip(batch, encoder.encode_whole(batch), strict=True):
            for whole in sequences:
                fitted = encoder.fit(whole)
                if fitted is not whole:
                    num_truncated += fitted is not None
                    findings.append(Finding(example, _too_long(whole, fitted, encoder.max_length_tokens)))
                if fitted is None:
                    continue
                kept.append(fitted)
                if example.shape != "text":
                    answer_tokens += len(fitted.supervised)
                    answer_supervised += sum(fitted.supervised)
    _refuse_empty(examples, kept, findings, encoder.max_length_tokens)
    if answer_tokens and answer_supervised == answer_tokens:
        raise DataError(
            f"{examples[0].origin}: 100 % of the {answer_tokens} tokens would be learned: no example has a prompt. "
            "Give prompts, or the texts as plain text."
        )
    return Encoded(
        tuple(kept), num_truncated, len(findings) - num_truncated, tuple(findings), encoder.warnings()
    )


def _refuse_empty(
    examples: Sequence[Example],
    kept: Sequence[EncodedExample],
    findings: Sequence[Finding],
    max_length_tokens: int,
) -> None:
    if not examples:
        raise DataError("There are no examples to encode.")
    if any(example.num_supervised for example in kept):
        return
    reason = (
        f"{len(findings)} of {len(examples)} are longer than {max_length_tokens} tokens; allow longer sequences"
        if findings
        else "no example has an answer or a text; fill them in"
    )
    raise DataError(f"{examples[0].origin}: 0 % of the tokens would be learned: {reason}.")


def _too_long(whole: EncodedExample, fitted: EncodedExample | None, limit: int) -> str:
    done = "dropped" if fitted is None else "its end cut off"
    return f"{len(whole.input_ids)} tokens, more than {limit}: {done}"


def _assistant_turns(example: Example) -> list[int]:
    """Positions of the assistant's messages; there is at least one."""
    turns = [index for index, message in enumerate(example.messages) if message.role == "assistant"]
    if not turns:
        raise DataError(
            f"{example.origin}: no message is the assistant's, so that there is nothing to learn."
        )
    return turns


def _join(example: Example, encoded: Iterable[tuple[list[int], list[int], _Piece]]) -> list[EncodedExample]:
    """Sequences of an example's turns: one goes on as long as the next prompt begins with all of it."""
    sequences: list[tuple[list[int], list[bool]]] = []
    for prompt, answer, piece in encoded:
        learned = [*answer, *piece.end_ids]
        if example.shape == "text":  # all of it is learned
            prompt, learned = [], [*prompt, *learned]
        if sequences and prompt[: len(sequences[-1][0])] == sequences[-1][0]:
            ids, mask = sequences[-1]
            prompt_rest = prompt[len(ids) :]
        else:
            ids, mask, prompt_rest = [], [], prompt
            sequences.append((ids, mask))
        ids += [*prompt_rest, *learned]
        mask += [False] * len(prompt_rest) + [True] * len(learned)
    return [EncodedExample(tuple(ids), tuple(mask), example.task, example.origin) for ids, mask in sequences]


def _batches(examples: Sequence[Example]) -> Iterator[Sequence[Example]]:
    for start in range(0, len(examples), _BATCH):
        yield examples[start : start + _BATCH]
