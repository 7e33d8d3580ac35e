"""vLLM's own OpenAI handlers around the gateway's engine.

The handlers are vLLM's, so that tools, structured output and every detail of the dialect come along. They are
given an engine client that reports to the observer of the request it works for, and request bodies that went
through an allow-list (serve/schemas/openai.py). vLLM's routes, its key check and its adapter verbs are not used.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, cast

from starlette.datastructures import State

from bases.errors import HotswapError
from serve.engine.protocol import AdapterHandle, GenerationObserver
from serve.engine.vllm.codec import RequestCodec
from serve.engine.vllm.marking import marked_chat
from serve.engine.vllm.outputs import engine_clock
from serve.engine.vllm.scoring import check_prompt_logprobs
from serve.errors import (
    ContextLengthError,
    EngineDeadError,
    EngineRefusedError,
    GenerationFailedError,
    UnknownModelError,
)
from serve.generation.limits import tokens_to_generate
from serve.observability.tracing import trace_headers

_observer: contextvars.ContextVar[GenerationObserver | None] = contextvars.ContextVar(
    "observer", default=None
)
_asked_tokens: contextvars.ContextVar[int | None] = contextvars.ContextVar("asked_tokens", default=None)


class ObservedClient:
    """vLLM's engine client with a listener on each generation, and special tokens in user text kept as text."""

    def __init__(self, client: Any, codec: RequestCodec) -> None:
        self._client = client
        self._codec = codec

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def generate(self, prompt: Any, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        """As AsyncLLM.generate. Whoever observes is whoever observed when this was called."""
        rendered = prompt.get("prompt") if isinstance(prompt, dict) else None
        if isinstance(rendered, str) and self._codec.has_marks(rendered):
            prompt = {**prompt, "prompt_token_ids": self._codec.encode_rendered(rendered)}
        token_ids = prompt.get("prompt_token_ids") or () if isinstance(prompt, dict) else ()
        self._check_room(len(token_ids))
        params = kwargs.get("sampling_params") or (args[0] if args else None)
        if getattr(params, "prompt_logprobs", None) is not None:
            config = self._client.vllm_config
            check_prompt_logprobs(
                len(token_ids),
                step_tokens=config.scheduler_config.max_num_batched_tokens,
                vocab_size=config.model_config.get_vocab_size(),
            )
        observer = _observer.get()
        if headers := trace_headers():
            kwargs["trace_headers"] = headers
        stream = self._client.generate(prompt, *args, **kwargs)
        if observer is None:
            return cast("AsyncGenerator[Any, None]", stream)
        observer.prompt(len(token_ids))
        return _observed(stream, observer)

    def _check_room(self, prompt_tokens: int) -> None:
        """vLLM's handlers answer with fewer tokens than asked for when they do not fit; /generate refuses."""
        asked = _asked_tokens.get()
        if asked is not None:
            context = self._client.vllm_config.model_config.max_model_len
            tokens_to_generate(prompt_tokens, asked, default=asked, context_tokens=context)


async def _observed(
    stream: AsyncGenerator[Any, None], observer: GenerationObserver
) -> AsyncGenerator[Any, None]:
    try:
        async for output in stream:
            num_tokens = sum(len(part.token_ids) for part in output.outputs)
            observer.output(num_tokens, *_clock(output))
            yield output
    finally:
        await stream.aclose()


def _clock(output: Any) -> tuple[float | None, float | None]:
    return engine_clock(output.metrics) if output.finished else (None, None)


class VllmOpenAI:
    """Implements serve.engine.protocol.OpenAIHandlers."""

    def __init__(self, state: State, codec: RequestCodec, client: Any) -> None:
        self._state = state
        self._codec = codec
        self._client = client

    @classmethod
    async def create(cls, client: Any, args: Any, codec: RequestCodec) -> VllmOpenAI:
        """Build vLLM's handlers on a started client."""
        from vllm.entrypoints.launchers.api_server.app_state import init_app_state

        state = State()
        await init_app_state(ObservedClient(client, codec), state, args, ("generate",))
        return cls(state, codec, client)

    def add_adapter(self, adapter: AdapterHandle, lora_request: Any) -> None:
        """Let the handlers find an adapter under its engine name."""
        self._state.openai_serving_models.lora_requests[adapter.name] = lora_request

    def remove_adapter(self, adapter: AdapterHandle) -> None:
        """Take an adapter's name from the handlers."""
        self._state.openai_serving_models.lora_requests.pop(adapter.name, None)

    async def chat(
        self, body: Mapping[str, Any], request_id: str, observer: GenerationObserver
    ) -> Mapping[str, Any] | AsyncIterator[str]:
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

        request = _parse(ChatCompletionRequest, marked_chat(body, self._codec), request_id)
        asked = body.get("max_completion_tokens") or body.get("max_tokens")
        handler = self._state.openai_serving_chat.create_chat_completion
        return await self._run(handler, request, observer, asked)

    async def completions(
        self, body: Mapping[str, Any], request_id: str, observer: GenerationObserver
    ) -> Mapping[str, Any] | AsyncIterator[str]:
        from vllm.entrypoints.openai.completion.protocol import CompletionRequest

        prompt = body["prompt"] if body.get("parse_special") else self._as_text(body["prompt"])
        plain = {name: value for name, value in body.items() if name != "parse_special"}
        request = _parse(CompletionRequest, {**plain, "prompt": prompt}, request_id)
        handler = self._state.openai_serving_completion.create_completion
        return await self._run(handler, request, observer, body.get("max_tokens"))

    def _as_text(self, prompt: Any) -> Any:
        """Prompts that hold special-token text go as token ids, in which it is text."""
        prompts = [prompt] if isinstance(prompt, str) else prompt
        if not any(isinstance(text, str) and self._codec.mark(text) != text for text in prompts):
            return prompt
        ids = [self._codec.encode(text, parse_special=False) for text in prompts]
        return ids[0] if isinstance(prompt, str) else ids

    async def _run(
        self, handler: Any, request: Any, observer: GenerationObserver, asked_tokens: int | None
    ) -> Mapping[str, Any] | AsyncIterator[str]:
        from vllm.entrypoints.serve.engine.protocol import ErrorResponse
        from vllm.exceptions import VLLMClientError, VLLMServerError

        token, asked = _observer.set(observer), _asked_tokens.set(asked_tokens)
        try:
            answer = await handler(request, None)
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError  # vLLM has made an error response out of it
        except (VLLMClientError, ValueError) as error:
            raise _refusal(400, str(error), getattr(error, "parameter", None)) from None
        except VLLMServerError as error:
            raise self._failure(str(error)) from None
        finally:
            _observer.reset(token)
            _asked_tokens.reset(asked)
        if isinstance(answer, ErrorResponse):
            if answer.error.code >= 500:
                raise self._failure(answer.error.message)
            raise _refusal(answer.error.code, answer.error.message, answer.error.param)
        if hasattr(answer, "model_dump"):
            whole: dict[str, Any] = answer.model_dump(mode="json")
            return whole
        return self._events(answer, request.request_id)

    async def _events(self, stream: AsyncGenerator[str, None], request_id: str) -> AsyncIterator[str]:
        """The handler's events, under the request's id as it is in whole answers, without vLLM's word before it.

        vLLM reports a failure inside the stream as one more event: it is raised instead.
        """
        named = re.compile(f'"id":"(?:chat)?cmpl-{re.escape(request_id)}"')
        own = f'"id":"{request_id}"'
        try:
            async for event in stream:
                if event.startswith('data: {"error"'):
                    error = json.loads(event.removeprefix("data: "))["error"]
                    code = error.get("code") or 500
                    if code >= 500:
                        raise self._failure(str(error.get("message")))
                    raise _refusal(code, str(error.get("message")), error.get("param"))
                yield named.sub(own, event, count=1)
        finally:
            await stream.aclose()

    def _failure(self, message: str) -> HotswapError:
        """vLLM gives the death of its engine and the failure of one request the same status."""
        if self._client.errored:
            return EngineDeadError("the engine process is gone; the request was not completed")
        return GenerationFailedError(message[:1000])


def _parse(kind: Any, body: Mapping[str, Any], request_id: str) -> Any:
    from pydantic import ValidationError
    from vllm.exceptions import VLLMClientError

    try:
        return kind(**body, request_id=request_id)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise EngineRefusedError(f"{where}: {first['msg']}"[:1000], param=where[:100] or None) from None
    except (VLLMClientError, ValueError) as error:
        raise _refusal(400, str(error), getattr(error, "parameter", None)) from None


def _refusal(code: int, message: str, param: str | None) -> HotswapError:
    if code == 404:
        return UnknownModelError(message, param=param or "model")
    if "context length" in message or "max_model_len" in message:
        return ContextLengthError(message[:1000], param=param)
    if 400 <= code < 500:
        return EngineRefusedError(message[:1000], param=param)
    return GenerationFailedError(message)
