"""A deterministic engine without a model: known delays, known words, and faults on request.

It exists for faults and timing. Each answer is the engine name of whoever answers, over and over
("risk@3f2a91c0 "), so that a test sees at once which version spoke. A token is one byte of a prompt and one word
of an answer; the answer to any prompt is the tokens 0, 1, 2 and so on. Aborts are recorded.

It dies and stands still as a process does: a dead one answers nobody, forgets its adapters and can be started
again, itself or another with the same script; a hanging one keeps everybody waiting.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adapters.artefact import WEIGHTS_NAME
from adapters.config import CONFIG_NAME
from adapters.target import TargetBase
from serve.engine.protocol import (
    AdapterHandle,
    Delta,
    EngineFacts,
    EngineOutput,
    EngineRequest,
    TokenLogprob,
)
from serve.engine.scripted_life import ScriptedLife
from serve.engine.scripted_openai import ScriptedOpenAI
from serve.errors import EngineDeadError, GenerationFailedError, LifecycleError, UnloadFailedError

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
    deaths: int | None = None  # so often, with any engine of this script; None: each time
    hang_after_tokens: int | None = None  # once, after so many tokens of any request, it stands still
    hang_seconds: float = math.inf  # for so long
    start_seconds: float = 0.0
    failing_starts: int = 0  # so many of the next starts fail
    load_error: str | None = None  # every load is refused with this reason
    no_effect: bool = False  # adapters answer with the base's logprobs
    strength: float = 1.0  # adapters move the base's log-odds by so much of what they are made for
    base_shift: float = 0.0  # of all log-odds: another base, or rounding
    keeps_unloaded: bool = False  # unload does nothing
    # Of versions by name ("risk@3f2a91c0"): requests fail at once; or begin so many seconds later.
    fail_versions: frozenset[str] = frozenset()
    slow_versions: Mapping[str, float] = field(default_factory=dict)

    def first_token_seconds(self, adapter: AdapterHandle | None) -> float:
        """How long that version takes to its first token."""
        name = adapter.name if adapter is not None else "base"
        return self.ttft_seconds + self.slow_versions.get(name, 0.0)


class ScriptedCodec:
    """One token per byte."""

    longest_token_chars = 1
    special_ids: frozenset[int] = frozenset()

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
        keep_requests: bool = True,
    ) -> None:
        """`keep_requests` False: what was asked is forgotten, for servers that run for hours."""
        self.script = script or Script()
        self._keeps_requests = keep_requests
        self.active: set[str] = set()
        self._generated: Counter[str] = Counter()  # tokens of what is active
        self.aborted: list[str] = []
        self.requests: list[EngineRequest] = []
        self.scored: list[AdapterHandle | None] = []  # who was asked for logprobs of given tokens
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
        self.openai = ScriptedOpenAI(self, self.adapters)
        self._made_of: dict[int, tuple[str, float]] = {}  # digest of the weights, and how strong they act
        self._life = ScriptedLife()
        self._changed = asyncio.Event()

    async def start(self) -> None:
        await asyncio.sleep(self.script.start_seconds)
        if self.script.failing_starts > 0:
            self.script.failing_starts -= 1
            raise EngineDeadError("the scripted engine does not start")
        if self._life.dead:
            self.adapters.clear()
            self._made_of.clear()
        self._life.begin()

    async def stop(self) -> None:
        self.die()

    async def kill(self) -> None:
        self.die()

    @property
    def process_ids(self) -> Sequence[int]:
        return ()

    def die(self) -> None:
        """What `kill -9` does: whatever waits inside ends with EngineDeadError."""
        self._life.die()

    def hang(self) -> None:
        """What SIGSTOP does: nothing is answered until `resume`."""
        self._life.hang()

    def resume(self) -> None:
        """What SIGCONT does."""
        self._life.resume()

    async def heartbeat(self) -> None:
        await self._life.check_moving()

    def _misbehave(self, step: int) -> None:
        """Die or stand still where the script says so."""
        script = self.script
        if script.die_after_tokens is not None and step >= script.die_after_tokens and script.deaths != 0:
            script.deaths = None if script.deaths is None else script.deaths - 1
            self.die()
        if script.hang_after_tokens is not None and step >= script.hang_after_tokens:
            script.hang_after_tokens = None
            self.hang()
            if script.hang_seconds < math.inf:
                asyncio.get_running_loop().call_later(script.hang_seconds, self.resume)

    @property
    def num_waiting(self) -> int:
        """Calls that wait inside the engine: for a time of the script, the gate, or until it hangs no more."""
        return self._life.num_waiting

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
        self._life.check_alive()
        if self._keeps_requests:
            self.requests.append(request)
        self.active.add(request.request_id)
        self._changed.set()
        completed = False
        try:
            await self._life.go_on(self.script.first_token_seconds(request.adapter))
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
            if not completed and self._keeps_requests:
                self.aborted.append(request.request_id)
            self.active.discard(request.request_id)
            del self._generated[request.request_id]
            self._changed.set()

    async def _steps(self, request: EngineRequest) -> AsyncIterator[EngineOutput]:
        sampling = request.sampling
        speaker = request.adapter.name if request.adapter is not None else "base"
        for step in range(sampling.max_tokens):
            if step:
                await self._life.go_on(self.script.tpot_seconds, gate=self.gate)
            self._misbehave(step)
            await self._life.check_moving()
            limit = 0 if speaker in self.script.fail_versions else self.script.fail_after_tokens
            if limit is not None and step >= limit:
                raise GenerationFailedError("the scripted engine failed this request")
            self._generated[request.request_id] += sampling.n
            last = step == sampling.max_tokens - 1
            logprobs = () if sampling.logprobs is None else (self._token(request, step),)
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
                ttft_seconds=self.script.first_token_seconds(request.adapter) if last else None,
            )

    def _token(self, request: EngineRequest, step: int) -> TokenLogprob:
        token_id = step % 256
        value = self._logprob(request.adapter, len(request.prompt_token_ids) + step, token_id)
        return TokenLogprob(token_id, "x", value, ((token_id, "x", value),))

    async def score(
        self,
        prompt_token_ids: Sequence[int],
        continuation_token_ids: Sequence[int],
        adapter: AdapterHandle | None,
    ) -> list[float]:
        await self._life.check_moving()
        await self._life.pass_gate(self.gate)
        if self._keeps_requests:
            self.scored.append(adapter)
        first = len(prompt_token_ids)
        return [
            self._logprob(adapter, position, token_id)
            for position, token_id in enumerate(continuation_token_ids, first)
        ]

    def _logprob(self, adapter: AdapterHandle | None, position: int, token_id: int) -> float:
        """Log-odds are drawn from who speaks, the token and its place; an adapter adds its own to the base's."""
        strength = 0.0 if adapter is None or self.script.no_effect else self.script.strength
        odds = 2.0 * _drawn("base", position, token_id) - 1.0 + self.script.base_shift
        if adapter is not None:
            maker, scale = self._made_of.get(adapter.engine_id, (adapter.name, 1.0))
            odds += strength * scale * 3.0 * _drawn(maker, position, token_id)
        return -math.log1p(math.exp(-odds))

    async def load_adapter(self, adapter: AdapterHandle) -> None:
        await self._life.go_on(self.script.load_seconds)
        if self.script.load_error is not None:
            raise LifecycleError(self.script.load_error)
        self.adapters[adapter.engine_id] = adapter
        if adapter.path.is_dir():
            self._made_of[adapter.engine_id] = await asyncio.to_thread(_read_adapter, adapter.path)

    async def unload_adapter(self, adapter: AdapterHandle) -> None:
        await self._life.check_moving()
        if self.script.keeps_unloaded:
            raise UnloadFailedError(f"the engine still holds {adapter.name}")
        self.adapters.pop(adapter.engine_id, None)
        self._made_of.pop(adapter.engine_id, None)

    async def resident_adapters(self) -> set[int]:
        return set(self.adapters)

    def generated_tokens(self, request_id: str) -> int:
        return sum(count for active, count in self._generated.items() if active.startswith(request_id))

    async def check_health(self) -> None:
        self._life.check_alive()


def _read_adapter(folder: Path) -> tuple[str, float]:
    """(sha256 of the weights, scale over that of `make_tiny_adapter`, alpha 8 at rank 4)."""
    values = json.loads((folder / CONFIG_NAME).read_bytes())
    rank = math.sqrt(values["r"]) if values["use_rslora"] else values["r"]
    weights = (folder / WEIGHTS_NAME).read_bytes()
    return hashlib.sha256(weights).hexdigest(), values["lora_alpha"] / rank / 2.0


def _drawn(*of: object) -> float:
    """A number between -1 and 1 that is always the same for the same `of`."""
    seed = hashlib.sha256(repr(of).encode()).digest()
    return int.from_bytes(seed[:4], "big") / 2**31 - 1.0


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
