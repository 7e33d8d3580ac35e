"""From a request's fields to what the engine is asked, and from its steps to an answer."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import pytest

from serve.engine.protocol import Delta, EngineOutput, EngineRequest, Sampling
from serve.engine.scripted import Script, ScriptedEngine
from serve.errors import ContextLengthError, EngineDeadError, GenerationFailedError, InvalidRequestError
from serve.generation.generation import INLINE_CHARS, collect, encode_prompts, engine_request, sampling_of
from serve.schemas.generate import GenerateBody


class NotingCodec:
    """One token a character; notes who asked for what, and in which thread."""

    longest_token_chars = 4
    special_ids: frozenset[int] = frozenset()

    def __init__(self) -> None:
        self.asked: list[tuple[str, bool, bool]] = []

    def encode(self, text: str, *, parse_special: bool) -> list[int]:
        self.asked.append((text[:8], parse_special, threading.current_thread() is threading.main_thread()))
        return [ord(char) for char in text]

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        text = "|".join(f"{m['role']}:{m['content']}" for m in messages)
        return self.encode(text, parse_special=True)


def body(**fields: Any) -> GenerateBody:
    return GenerateBody.model_validate({"prompt": "x", **fields})


def sampling(
    given: GenerateBody, prompt_tokens: int = 1, defaults: Mapping[str, float] | None = None
) -> Sampling:
    return sampling_of(given, prompt_tokens, defaults=defaults or {}, max_tokens=50, context_tokens=100)


async def test_prompts_keep_their_order() -> None:
    codec = NotingCodec()
    encoded = await encode_prompts(body(prompt=["b", "a", "cc"]), codec, context_tokens=9)
    assert encoded == [[98], [97], [99, 99]]
    assert all(not parse_special for _, parse_special, _ in codec.asked)


async def test_special_tokens_are_read_only_when_asked_for() -> None:
    codec = NotingCodec()
    await encode_prompts(body(parse_special=True), codec, context_tokens=9)
    assert codec.asked[0][1] is True


async def test_messages_go_through_the_template() -> None:
    given = GenerateBody.model_validate({"messages": [{"role": "user", "content": "hi"}]})
    (encoded,) = await encode_prompts(given, NotingCodec(), context_tokens=9)
    assert "".join(map(chr, encoded)) == "user:hi"


@pytest.mark.parametrize("chat", [False, True])
async def test_a_long_text_is_encoded_in_another_thread(chat: bool) -> None:
    codec = NotingCodec()
    for length, in_loop in ((INLINE_CHARS, True), (INLINE_CHARS + 1, False)):
        text = "x" * length
        given = {"messages": [{"role": "user", "content": text}]} if chat else {"prompt": text}
        await encode_prompts(GenerateBody.model_validate(given), codec, context_tokens=10_000)
        assert codec.asked[-1][2] == in_loop


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"prompt": "x" * 41}, "prompt"),
        ({"prompt": ["x", "x" * 41]}, "prompt"),
        ({"messages": [{"role": "user", "content": "x" * 41}]}, "messages"),
    ],
)
async def test_a_text_that_cannot_fit_is_never_encoded(given: dict[str, Any], param: str) -> None:
    codec = NotingCodec()
    with pytest.raises(ContextLengthError) as refused:
        await encode_prompts(GenerateBody.model_validate(given), codec, context_tokens=10)
    assert refused.value.param == param
    assert all(len(text) < 8 for text, _, _ in codec.asked)


def test_without_fields_or_defaults_drawing_is_greedy() -> None:
    assert sampling(body()) == Sampling(max_tokens=50, temperature=0.0)


def test_the_bases_own_defaults_stand_where_the_request_says_nothing() -> None:
    defaults = {"temperature": 0.7, "top_p": 0.9, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1}
    drawn = sampling(body(), defaults=defaults)
    assert {name: getattr(drawn, name) for name in defaults} == defaults
    asked = {"temperature": 0, "top_p": 1, "top_k": 5, "min_p": 0, "repetition_penalty": 1}
    drawn = sampling(body(**asked), defaults=defaults)
    assert {name: getattr(drawn, name) for name in asked} == asked


def test_every_field_reaches_the_engine() -> None:
    drawn = sampling(
        body(
            n=3,
            max_tokens=7,
            temperature=0.5,
            presence_penalty=0.1,
            frequency_penalty=-0.2,
            seed=11,
            stop=["a", "b"],
            logprobs=0,
            ignore_eos=True,
            response_format={"type": "regex", "regex": "a+"},
        )
    )
    assert (drawn.n, drawn.max_tokens, drawn.temperature, drawn.seed) == (3, 7, 0.5, 11)
    assert (drawn.presence_penalty, drawn.frequency_penalty) == (0.1, -0.2)
    assert (drawn.stop, drawn.logprobs, drawn.ignore_eos) == (("a", "b"), 0, True)
    assert drawn.constraint is not None
    assert drawn.constraint.kind == "regex"


@pytest.mark.parametrize(("asked", "engine"), [(-1, 0), (0, 0), (7, 7)])
def test_all_tokens_is_zero_for_the_engine(asked: int, engine: int) -> None:
    assert sampling(body(top_k=asked)).top_k == engine


def test_the_default_length_shrinks_to_the_context_and_an_asked_one_is_refused() -> None:
    assert sampling(body(), 90).max_tokens == 10
    assert sampling(body(max_tokens=10), 90).max_tokens == 10
    with pytest.raises(ContextLengthError) as refused:
        sampling(body(max_tokens=11), 90)
    assert refused.value.param == "max_tokens"
    with pytest.raises(ContextLengthError):
        sampling(body(), 100)
    with pytest.raises(InvalidRequestError):
        sampling(body(), 0)


def test_reasoning_is_split_for_conversations_alone() -> None:
    chat = GenerateBody.model_validate({"messages": [{"role": "user", "content": "x"}]})
    off = chat.model_copy(update={"reasoning": False})
    split = [engine_request("r", b, [1], Sampling(), None).split_reasoning for b in (chat, off, body())]
    assert split == [True, False, False]


def request(**fields: Any) -> EngineRequest:
    return EngineRequest("req", [1, 2, 3], Sampling(**{"max_tokens": 2, **fields}))


@pytest.mark.parametrize("stream", [True, False])
async def test_a_whole_answer_is_collected_from_any_steps(stream: bool) -> None:
    engine = ScriptedEngine(Script(ttft_seconds=0.001))
    asked = EngineRequest("req", [1, 2, 3], Sampling(max_tokens=2, n=2, logprobs=1), stream=stream)
    answer = await collect(engine, asked)
    assert [(s.index, s.text, s.finish_reason) for s in answer.sequences] == [
        (0, "base base ", "length"),
        (1, "base base ", "length"),
    ]
    assert (answer.prompt_tokens, answer.completion_tokens) == (3, 4)
    assert [len(s.logprobs) for s in answer.sequences] == [2, 2]
    assert answer.queue_seconds == 0.0
    assert answer.ttft_seconds == 0.001
    assert not engine.active


class WrittenEngine:
    def __init__(self, outputs: list[EngineOutput]) -> None:
        self.outputs = outputs

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        for output in self.outputs:
            yield output


@pytest.mark.parametrize(
    "outputs",
    [
        [],
        [EngineOutput([Delta(0, "half")])],
        [EngineOutput([Delta(0, "cut", finish_reason="abort")])],
        [EngineOutput([Delta(0, "bad", finish_reason="error")])],
    ],
)
async def test_an_answer_that_is_not_complete_is_an_error(outputs: list[EngineOutput]) -> None:
    engine: Any = WrittenEngine(outputs)
    with pytest.raises(GenerationFailedError):
        await collect(engine, request())


async def test_reasoning_and_stop_reasons_are_kept() -> None:
    steps = [
        EngineOutput([Delta(0, "", reasoning="hm ", token_ids=(1,))]),
        EngineOutput([Delta(0, "a", reasoning="so", token_ids=(2, 3))]),
        EngineOutput([Delta(0, "", finish_reason="stop", stop_reason="END")], 0.25, 99.0),
    ]
    engine: Any = WrittenEngine(steps)
    answer = await collect(engine, request())
    (sequence,) = answer.sequences
    assert (sequence.reasoning, sequence.text, sequence.num_tokens) == ("hm so", "a", 3)
    assert (sequence.finish_reason, sequence.stop_reason) == ("stop", "END")
    assert answer.queue_seconds == 0.25
    assert answer.ttft_seconds is not None
    assert answer.ttft_seconds < 99.0  # never more than the whole took


async def test_the_engines_own_error_comes_through() -> None:
    with pytest.raises(EngineDeadError):
        await collect(ScriptedEngine(Script(die_after_tokens=1)), request())
    with pytest.raises(GenerationFailedError, match="scripted"):
        await collect(ScriptedEngine(Script(fail_after_tokens=1)), request())
