"""The scripted engine behind OpenAI's API: what vLLM's handlers are to vLLM."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson

from serve.engine.protocol import AdapterHandle, Engine, EngineRequest, GenerationObserver, Sampling
from serve.limits import tokens_to_generate


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
        prompt = self._engine.codec.encode(str(body["prompt"]), parse_special=False)
        return await self._answer(body, request_id, prompt, observer, chat=False)

    async def _answer(
        self,
        body: Mapping[str, Any],
        request_id: str,
        prompt: list[int],
        observer: GenerationObserver,
        *,
        chat: bool,
    ) -> Mapping[str, Any] | AsyncIterator[str]:
        streaming = bool(body.get("stream"))
        max_tokens = tokens_to_generate(
            len(prompt),
            body.get("max_completion_tokens") or body.get("max_tokens"),
            default=16,
            context_tokens=self._engine.facts.context_tokens,
            param="messages" if chat else "prompt",
        )
        adapter = next((a for a in self._adapters.values() if a.name == body["model"]), None)
        request = EngineRequest(
            request_id,
            prompt,
            Sampling(n=body.get("n") or 1, max_tokens=max_tokens),
            adapter,
            stream=streaming,
        )
        observer.prompt(len(prompt))
        if streaming:
            options = body.get("stream_options") or {}
            return self._events(
                request, body["model"], observer, chat=chat, usage=bool(options.get("include_usage"))
            )
        text, num_tokens = "", 0
        async for output in self._engine.generate(request):
            num_tokens += sum(len(delta.token_ids) for delta in output.deltas)
            observer.output(num_tokens, output.queue_seconds, output.ttft_seconds)
            text = output.deltas[0].text
        message: dict[str, Any] = (
            {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        )
        return {
            "id": request_id,
            "object": "chat.completion" if chat else "text_completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "length", "logprobs": None, **message}],
            "usage": _usage(len(prompt), num_tokens),
        }

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


def _usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
