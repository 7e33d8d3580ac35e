"""Runs /generate requests: prompts to token ids, tokens to answers. Knows nothing of HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from serve.engine.protocol import (
    AdapterHandle,
    Delta,
    EngineOutput,
    EngineRequest,
    PromptCodec,
    Sampling,
    TokenLogprob,
)
from serve.errors import GenerationFailedError
from serve.generation.limits import check_characters, tokens_to_generate
from serve.schemas.generate import GenerateBody
from serve.schemas.sampling import constraint_of

T = TypeVar("T")

# Shorter texts are tokenised in less time than a hop to a thread and back takes.
INLINE_CHARS = 4096


@dataclass(slots=True)
class SequenceAnswer:
    """One finished sequence."""

    index: int
    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    num_tokens: int = 0
    logprobs: Sequence[TokenLogprob] = ()
    _gathered: list[TokenLogprob] | None = None  # from more deltas than one

    def add(self, delta: Delta) -> None:
        """Append what the sequence gained."""
        self.text += delta.text
        self.reasoning += delta.reasoning
        self.num_tokens += len(delta.token_ids)
        if not self.logprobs:
            self.logprobs = delta.logprobs  # the one of a whole answer stays as it is: made as it is read
        elif delta.logprobs:
            self._gathered = self._gathered or list(self.logprobs)
            self._gathered.extend(delta.logprobs)
            self.logprobs = self._gathered
        if delta.finish_reason is not None:
            self.finish_reason, self.stop_reason = delta.finish_reason, delta.stop_reason


@dataclass(slots=True)
class PromptAnswer:
    """All sequences of one prompt, and the engine's clock."""

    prompt_tokens: int
    sequences: list[SequenceAnswer]
    queue_seconds: float | None = None
    ttft_seconds: float | None = None

    @property
    def completion_tokens(self) -> int:
        """Tokens generated over all sequences."""
        return sum(sequence.num_tokens for sequence in self.sequences)


async def encode_prompts(body: GenerateBody, codec: PromptCodec, *, context_tokens: int) -> list[list[int]]:
    """Token ids of each prompt. Raises ContextLengthError, InvalidRequestError."""
    if body.messages is not None:
        messages: list[Mapping[str, str]] = [{"role": m.role, "content": m.content} for m in body.messages]
        num_chars = sum(len(m["content"]) for m in messages)
        _check_length(num_chars, codec, context_tokens, "messages")
        if num_chars <= INLINE_CHARS:
            return [codec.encode_chat(messages)]
        return [await asyncio.to_thread(codec.encode_chat, messages)]
    prompts = [body.prompt] if isinstance(body.prompt, str) else list(body.prompt or ())
    encoded = []
    for prompt in prompts:
        _check_length(len(prompt), codec, context_tokens, "prompt")
        if len(prompt) <= INLINE_CHARS:
            encoded.append(codec.encode(prompt, parse_special=body.parse_special))
        else:
            encoded.append(await asyncio.to_thread(codec.encode, prompt, parse_special=body.parse_special))
    return encoded


def _check_length(num_chars: int, codec: PromptCodec, context_tokens: int, param: str) -> None:
    check_characters(
        num_chars, context_tokens=context_tokens, longest_token_chars=codec.longest_token_chars, param=param
    )


def sampling_of(
    body: GenerateBody,
    prompt_tokens: int,
    *,
    defaults: Mapping[str, float],
    max_tokens: int,
    context_tokens: int,
) -> Sampling:
    """How to draw: the request's fields, then the base's generation config, then greedy."""

    def value(name: str, otherwise: float) -> Any:
        asked = getattr(body, name)
        return asked if asked is not None else defaults.get(name, otherwise)

    param = "prompt" if body.messages is None else "messages"
    num_tokens = tokens_to_generate(
        prompt_tokens, body.max_tokens, default=max_tokens, context_tokens=context_tokens, param=param
    )
    return Sampling(
        n=body.n or 1,
        max_tokens=num_tokens,
        temperature=value("temperature", 0.0),
        top_p=value("top_p", 1.0),
        top_k=max(0, int(value("top_k", 0))),
        min_p=value("min_p", 0.0),
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        repetition_penalty=value("repetition_penalty", 1.0),
        stop=body.stops,
        seed=body.seed,
        logprobs=body.logprobs,
        ignore_eos=bool(body.ignore_eos),
        constraint=constraint_of(body.response_format),
    )


def engine_request(
    request_id: str,
    body: GenerateBody,
    prompt: list[int],
    sampling: Sampling,
    adapter: AdapterHandle | None,
    *,
    cache_salt: str | None = None,
) -> EngineRequest:
    """One prompt as the engine takes it."""
    return EngineRequest(
        request_id=request_id,
        prompt_token_ids=prompt,
        sampling=sampling,
        adapter=adapter,
        stream=bool(body.stream),
        split_reasoning=body.reasoning and body.messages is not None,
        cache_salt=cache_salt,
    )


class Generates(Protocol):
    """An engine, or one behind something that looks on."""

    def generate(self, request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        """As Engine.generate."""


async def collect(engine: Generates, request: EngineRequest) -> PromptAnswer:
    """The whole answer to one prompt. Raises EngineError; GenerationFailedError for an unfinished sequence."""
    started = time.perf_counter()
    answer = PromptAnswer(
        len(request.prompt_token_ids), [SequenceAnswer(index) for index in range(request.sampling.n)]
    )
    async for output in engine.generate(request):
        for delta in output.deltas:
            answer.sequences[delta.index].add(delta)
        if output.queue_seconds is not None:
            answer.queue_seconds = output.queue_seconds
        if output.ttft_seconds is not None:
            answer.ttft_seconds = min(output.ttft_seconds, time.perf_counter() - started)
    check_finished(answer.sequences)
    return answer


async def all_of(*answers: Coroutine[Any, Any, T]) -> list[T]:
    """All answers in order; the first failure cancels the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(answer) for answer in answers]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def check_finished(sequences: list[SequenceAnswer]) -> None:
    """Raise GenerationFailedError unless every sequence came to a proper end."""
    if any(sequence.finish_reason not in ("stop", "length") for sequence in sequences):
        raise GenerationFailedError("the engine ended this request before its answer was complete")
