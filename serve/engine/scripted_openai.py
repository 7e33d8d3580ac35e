"""The scripted engine behind OpenAI's API: what vLLM's handlers are to vLLM."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from serve.engine.protocol import AdapterHandle, Engine, EngineRequest, GenerationObserver, Sampling
from serve.generation.limits import tokens_to_generate


@dataclass
class _Whole:
    """The answers to one prompt."""

    prompt_tokens: int
    texts: list[str] = field(default_factory=list)
    num_tokens: int = 0


class ScriptedOpenAI:
    """The shapes of OpenAI's answers around the scripted words."""

    def __init__(self, engine: Engine, adapters: Mapping[int, AdapterHandle]) -> None:
        """`adapters` are those that `engine` holds, by their ids; a model is known by the name of one."""
        self._engine = engine
        self._adapters = adapters

    async def chat(
        self, body: Mapping[str, Any], request_id: str, observer: GenerationObserver
    ) -> Mapping[str, Any] | AsyncIterator[str]:
        prompt = self._engine.codec.encode_chat(
            [{"role": m["role"], "content": str(m.get("content"))} for m in body["messages"]]
        )
        return await self._answer(body, request_id, prompt, observer, chat=True)

    async def completions(
        self, body: Mapping[str, Any], request_id: str, observer: GenerationObserver
    ) -> Mapping[str, Any] | AsyncIterator[str]:
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        encoded = [self._engine.codec.encode(str(prompt), parse_special=False) for prompt in prompts]
        if len(encoded) == 1:
            return await self._answer(body, request_id, encoded[0], observer, chat=False)
        answers = [
            await self._whole(body, f"{request_id}-{place}", prompt, observer, chat=False)
            for place, prompt in enumerate(encoded)
        ]
        texts = [text for answer in answers for text in answer.texts]
        counts = [
            sum(answer.prompt_tokens for answer in answers),
            sum(answer.num_tokens for answer in answers),
        ]
        return _completion(request_id, body["model"], texts, *counts, chat=False)

    async def _answer(
        self,
        body: Mapping[str, Any],
        request_id: str,
        prompt: list[int],
        observer: GenerationObserver,
        *,
        chat: bool,
    ) -> Mapping[str, Any] | AsyncIterator[str]:
        if not body.get("stream"):
            answer = await self._whole(body, request_id, prompt, observer, chat=chat)
            return _completion(
                request_id, body["model"], answer.texts, answer.prompt_tokens, answer.num_tokens, chat=chat
            )
        request = self._request(body, request_id, prompt, chat=chat)
        observer.prompt(len(prompt))
        options = body.get("stream_options") or {}
        return self._events(
            request, body["model"], observer, chat=chat, usage=bool(options.get("include_usage"))
        )

    def _request(
        self, body: Mapping[str, Any], request_id: str, prompt: list[int], *, chat: bool
    ) -> EngineRequest:
        max_tokens = tokens_to_generate(
            len(prompt),
            body.get("max_completion_tokens") or body.get("max_tokens"),
            default=16,
            context_tokens=self._engine.facts.context_tokens,
            param="messages" if chat else "prompt",
        )
        adapter = next((a for a in self._adapters.values() if a.name == body["model"]), None)
        sampling = Sampling(n=body.get("n") or 1, max_tokens=max_tokens)
        return EngineRequest(request_id, prompt, sampling, adapter, stream=bool(body.get("stream")))

    async def _whole(
        self,
        body: Mapping[str, Any],
        request_id: str,
        prompt: list[int],
        observer: GenerationObserver,
        *,
        chat: bool,
    ) -> _Whole:
        request = self._request(body, request_id, prompt, chat=chat)
        observer.prompt(len(prompt))
        whole = _Whole(len(prompt))
        async for output in self._engine.generate(request):
            num_tokens = sum(len(delta.token_ids) for delta in output.deltas)
            observer.output(num_tokens, output.queue_seconds, output.ttft_seconds)
            whole.num_tokens += num_tokens
            whole.texts = [delta.text for delta in output.deltas]
        return whole

    async def _events(
        self, request: EngineRequest, model: str, observer: GenerationObserver, *, chat: bool, usage: bool
    ) -> AsyncIterator[str]:
        head = {
            "id": request.request_id,
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": 0,
            "model": model,
        }
        num_tokens = 0
        async for output in self._engine.generate(request):
            delta = output.deltas[0]
            num_tokens += sum(len(each.token_ids) for each in output.deltas)
            observer.output(len(delta.token_ids), output.queue_seconds, output.ttft_seconds)
            piece: dict[str, Any] = {"delta": {"content": delta.text}} if chat else {"text": delta.text}
            choice = {"index": 0, "finish_reason": delta.finish_reason, "logprobs": None, **piece}
            yield f"data: {orjson.dumps({**head, 'choices': [choice]}).decode()}\n\n"
        if usage:
            counts = _usage(len(request.prompt_token_ids), num_tokens)
            yield f"data: {orjson.dumps({**head, 'choices': [], 'usage': counts}).decode()}\n\n"
        yield "data: [DONE]\n\n"


def _completion(
    request_id: str, model: str, texts: Sequence[str], prompt_tokens: int, num_tokens: int, *, chat: bool
) -> dict[str, Any]:
    """A whole answer, with the fields that vLLM fills with null."""
    nothing = dict.fromkeys(("refusal", "annotations", "audio", "function_call", "reasoning"))
    pieces = [
        {"message": {"role": "assistant", "content": text, **nothing}} if chat else {"text": text}
        for text in texts
    ]
    return {
        "id": request_id,
        "object": "chat.completion" if chat else "text_completion",
        "created": 0,
        "model": model,
        "choices": [
            {"index": index, "finish_reason": "length", "logprobs": None, **piece}
            for index, piece in enumerate(pieces)
        ],
        "usage": _usage(prompt_tokens, num_tokens),
    }


def _usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
