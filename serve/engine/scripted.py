"""A deterministic engine without a model: known delays, known words, and faults on request.

It exists for faults and timing. Each answer is the engine name of whoever answers, over and over
("risk@3f2a91c0 "), so that a test sees at once which version spoke. A token is one byte of a prompt and one word
of an answer. Aborts are recorded.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from adapters.target import TargetBase
from serve.engine.protocol import (
    AdapterHandle,
    Delta,
    EngineFacts,
    EngineOutput,
    EngineRequest,
    GenerationObserver,
    Sampling,
    TokenLogprob,
)
from serve.errors import EngineDeadError, GenerationFailedError, LifecycleError, UnloadFailedError
from serve.limits import tokens_to_generate

# The base that adapters are checked against when this engine serves.
SCRIPTED_TARGET = TargetBase(
    fingerprint="0" * 64,
    name="scripted",
    linear_modules={
        "model.layers.0.self_attn.q_proj": (64, 64),
        "model.layers.0.self_attn.v_proj": (64, 32),
    },
    reference="scripted",
)


@dataclass
class Script:
    """How the engine behaves; may be changed while it runs."""

    ttft_seconds: float = 0.0
    tpot_seconds: float = 0.0
    load_seconds: float = 0.0
    fail_after_tokens: int | None = None  # each request fails after so many tokens
    die_after_tokens: int | None = None  # the engine dies after so many tokens of any request
    load_error: str | None = None  # every load is refused with this reason
    no_effect: bool = False  # adapters answer with the base's logprobs
    keeps_unloaded: bool = False  # unload does nothing


class ScriptedCodec:
    """One token per byte."""

    longest_token_chars = 1

    def encode(self, text: str, *, parse_special: bool) -> list[int]:
        del parse_special
        return list(text.encode("utf-8"))

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        return list("".join(f"{m['role']}: {m['content']}\n" for m in messages).encode("utf-8"))


class ScriptedEngine:
    """Implements serve.engine.protocol.Engine."""

    def __init__(
        self,
        script: Script | None = None,
        *,
        model_name: str = "scripted",
        context_tokens: int = 4096,
        max_num_seqs: int = 64,
        max_loras: int = 8,
        max_cpu_loras: int = 64,
        max_lora_rank: int = 64,
    ) -> None:
        self.script = script or Script()
        self.active: set[str] = set()
        self.aborted: list[str] = []
        self.requests: list[EngineRequest] = []
        self.adapters: dict[int, AdapterHandle] = {}
        self.gate = asyncio.Event()  # cleared: no request gets past its first token
        self.gate.set()
        self.facts = EngineFacts(
            model_name=model_name,
            context_tokens=context_tokens,
            vocab_size=256,
            max_num_seqs=max_num_seqs,
            max_loras=max_loras,
            max_cpu_loras=max_cpu_loras,
            max_lora_rank=max_lora_rank,
            reasoning=False,
            notes={"engine": "scripted: no model, deterministic words"},
        )
        self.codec = ScriptedCodec()
        self.openai = ScriptedOpenAI(self)
        self._dead = False
        self._changed = asyncio.Event()

    async def start(self) -> None:
        self._dead = False

    async def stop(self) -> None:
        self._dead = True

    async def wait_active(self, count: int) -> None:
        """Return when at least `count` requests are inside the engine."""
        while len(self.active) < count:
            self._changed.clear()
            await self._changed.wait()

    async def wait_gone(self) -> None:
        """Return when no request is inside the engine."""
        while self.active:
            self._changed.clear()
            await self._changed.wait()

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        if self._dead:
            raise EngineDeadError("the scripted engine is dead")
        self.requests.append(request)
        self.active.add(request.request_id)
        self._changed.set()
        completed = False
        try:
            await asyncio.sleep(self.script.ttft_seconds)
            collected: list[EngineOutput] = []
            async for output in self._steps(request):
                if request.stream:
                    yield output
                else:
                    collected.append(output)
            if not request.stream:
                yield _merged(collected)
            completed = True
        finally:
            if not completed:
                self.aborted.append(request.request_id)
            self.active.discard(request.request_id)
            self._changed.set()

    async def _steps(self, request: EngineRequest) -> AsyncIterator[EngineOutput]:
        sampling = request.sampling
        speaker = request.adapter.name if request.adapter is not None else "base"
        for step in range(sampling.max_tokens):
            if step:
                await asyncio.sleep(self.script.tpot_seconds)
                await self.gate.wait()
            if self.script.die_after_tokens is not None and step >= self.script.die_after_tokens:
                self._dead = True
            if self._dead:
                raise EngineDeadError("the scripted engine died")
            if self.script.fail_after_tokens is not None and step >= self.script.fail_after_tokens:
                raise GenerationFailedError("the scripted engine failed this request")
            last = step == sampling.max_tokens - 1
            logprobs = () if sampling.logprobs is None else (self._logprob(request),)
            deltas = [
                Delta(
                    index,
                    f"{speaker} ",
                    token_ids=(step % 256,),
                    logprobs=logprobs,
                    finish_reason="length" if last else None,
                )
                for index in range(sampling.n)
            ]
            yield EngineOutput(
                deltas,
                queue_seconds=0.0 if last else None,
                ttft_seconds=self.script.ttft_seconds if last else None,
            )

    def _logprob(self, request: EngineRequest) -> TokenLogprob:
        speaker = "base"
        if request.adapter is not None and not self.script.no_effect:
            speaker = request.adapter.name
        seed = hashlib.sha256(speaker.encode()).digest()
        value = math.log((int.from_bytes(seed[:4], "big") % 9000 + 500) / 10_000)
        return TokenLogprob(0, "x", value, ((0, "x", value),))

    async def load_adapter(self, adapter: AdapterHandle) -> None:
        await asyncio.sleep(self.script.load_seconds)
        if self.script.load_error is not None:
            raise LifecycleError(self.script.load_error)
        self.adapters[adapter.engine_id] = adapter

    async def unload_adapter(self, adapter: AdapterHandle) -> None:
        if self.script.keeps_unloaded:
            raise UnloadFailedError(f"the engine still holds {adapter.name}")
        self.adapters.pop(adapter.engine_id, None)

    async def resident_adapters(self) -> set[int]:
        return set(self.adapters)

    async def check_health(self) -> None:
        if self._dead:
            raise EngineDeadError("the scripted engine is dead")


def _merged(outputs: list[EngineOutput]) -> EngineOutput:
    """All steps as one output, as an engine gives them to a request that does not stream."""
    whole: dict[int, Delta] = {}
    for output in outputs:
        for delta in output.deltas:
            into = whole.setdefault(delta.index, Delta(delta.index))
            into.text += delta.text
            into.token_ids = [*into.token_ids, *delta.token_ids]
            into.logprobs = [*into.logprobs, *delta.logprobs]
            into.finish_reason = delta.finish_reason
    last = outputs[-1]
    return EngineOutput([whole[index] for index in sorted(whole)], last.queue_seconds, last.ttft_seconds)


def _usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


class ScriptedOpenAI:
    """The shapes of OpenAI's answers around the scripted words."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self._engine = engine

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
        adapter = next((a for a in self._engine.adapters.values() if a.name == body["model"]), None)
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
