"""The seam between the gateway and whatever generates tokens.

Everything above this file speaks in these types; vLLM is known only to serve/engine/vllm/, and the scripted
engine (serve/engine/scripted.py) implements the same protocol without a model, for faults and timing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

FinishReason = Literal["stop", "length", "abort", "error"]
ConstraintKind = Literal["json_schema", "json_object", "regex", "choice"]


@dataclass(frozen=True, slots=True)
class AdapterHandle:
    """One immutable adapter version as the engine knows it."""

    name: str  # "risk@3f2a91c0": the only name the engine ever sees
    engine_id: int  # never reused while the engine lives
    path: Path  # immutable folder in the store; the engine may read it again after an eviction


@dataclass(frozen=True, slots=True)
class Constraint:
    """What the answer must look like."""

    kind: ConstraintKind
    value: str | tuple[str, ...]  # JSON text of the schema, the regex, or the choices


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn; values are already within the bounds of the request schema."""

    n: int = 1
    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0: all tokens
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    keep_stop: bool = False  # the stop text that ended the answer stays at its end
    seed: int | None = None
    logprobs: int | None = None  # None: none; k: of the sampled token and the k most likely
    ignore_eos: bool = False
    constraint: Constraint | None = None


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One prompt on its way to the engine."""

    request_id: str
    prompt_token_ids: Sequence[int]
    sampling: Sampling
    adapter: AdapterHandle | None = None  # None: the base
    stream: bool = True  # False: one output at the end, which costs the engine less
    split_reasoning: bool = False
    cache_salt: str | None = None  # only requests with the same one share a prefix cache
    urgent: bool = False  # the gateway's own: goes ahead of what waits, where the engine knows priorities


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log probability (natural) of one generated token and of its likeliest rivals."""

    token_id: int
    text: str
    logprob: float
    top: tuple[tuple[int, str, float], ...] = ()


@dataclass(slots=True)
class Delta:
    """What one sequence gained since the last output."""

    index: int
    text: str = ""
    reasoning: str = ""
    token_ids: Sequence[int] = ()
    logprobs: Sequence[TokenLogprob] = ()
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None


@dataclass(slots=True)
class EngineOutput:
    """One step of a request: the deltas of its sequences; the engine's own clock comes with the last one."""

    deltas: list[Delta] = field(default_factory=list)
    queue_seconds: float | None = None
    ttft_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What the gateway must know of a started engine."""

    model_name: str
    context_tokens: int
    vocab_size: int
    max_num_seqs: int
    max_loras: int
    max_cpu_loras: int
    max_lora_rank: int
    reasoning: bool
    dtype: str = "float32"  # what the engine computes in
    quantisation: str | None = None  # scheme of the base's weights, None: none
    default_sampling: Mapping[str, float] = field(default_factory=dict)  # the base's generation config
    notes: Mapping[str, str] = field(default_factory=dict)  # setting -> chosen value and why


class PromptCodec(Protocol):
    """Text to token ids. Thread-safe; long texts are encoded in a worker thread."""

    longest_token_chars: int  # no token stands for more characters
    special_ids: frozenset[int]  # tokens that are no text, such as the end of a turn

    def encode(self, text: str, *, parse_special: bool) -> list[int]:
        """Token ids of a raw prompt, with whatever the tokenizer puts in front of one (BOS).

        `parse_special=False` reads the text of a special token as text, so that a user cannot end a turn.
        """

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a conversation through the base's chat template, ready for the assistant's turn.

        Raises InvalidRequestError when the base has no chat template or the template refuses the messages.
        """


class OpenAIHandlers(Protocol):
    """Answers OpenAI requests whose `model` is already an engine name."""

    async def chat(
        self, body: Mapping[str, Any], request_id: str, observer: GenerationObserver
    ) -> Mapping[str, Any] | AsyncIterator[str]:
        """A whole answer, or an iterator of server-sent-event text when `stream` was asked for."""

    async def completions(
        self, body: Mapping[str, Any], request_id: str, observer: GenerationObserver
    ) -> Mapping[str, Any] | AsyncIterator[str]:
        """The same for /v1/completions."""


class GenerationObserver(Protocol):
    """Told what the engine does for a request that vLLM's own handlers drive."""

    def prompt(self, num_tokens: int) -> None:
        """The prompt was tokenised to that many tokens and handed to the engine."""

    def output(self, num_tokens: int, queue_seconds: float | None, ttft_seconds: float | None) -> None:
        """That many tokens more came out; the engine's own clock is given with the last output."""


class Engine(Protocol):
    """Generates tokens from one base model with adapters that come and go."""

    @property
    def facts(self) -> EngineFacts:
        """Known once `start` returned."""

    @property
    def codec(self) -> PromptCodec:
        """Known once `start` returned."""

    @property
    def openai(self) -> OpenAIHandlers:
        """Known once `start` returned."""

    async def start(self) -> None:
        """Bring the engine up; returns when it can generate."""

    async def stop(self) -> None:
        """End the engine and its processes. Idempotent."""

    def generate(self, request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        """Outputs until every sequence has a finish reason. Closing the iterator aborts the request.

        Raises EngineDeadError, GenerationFailedError, InvalidRequestError.
        """

    async def score(
        self,
        prompt_token_ids: Sequence[int],
        continuation_token_ids: Sequence[int],
        adapter: AdapterHandle | None,
    ) -> list[float]:
        """Natural log probability of each token of the continuation after all that stands before it.

        Urgent. Nothing is sampled: the same tokens are scored whatever the model would have said.
        Raises as `generate` does.
        """

    async def load_adapter(self, adapter: AdapterHandle) -> None:
        """Make an adapter usable. Raises LifecycleError with the engine's reason."""

    async def unload_adapter(self, adapter: AdapterHandle) -> None:
        """Forget an adapter; an adapter already evicted counts as unloaded. Verified.

        Raises UnloadFailedError when the engine still holds it afterwards.
        """

    async def resident_adapters(self) -> set[int]:
        """Engine ids held in memory now."""

    def generated_tokens(self, request_id: str) -> int:
        """Tokens that a running request has until now, over all its sequences and prompts, whether seen or not.

        0 for one that is not in the engine.
        """

    async def check_health(self) -> None:
        """Raises EngineDeadError when no request can be answered any more."""


class MortalEngine(Engine, Protocol):
    """An engine that may die or stand still, with what a supervisor needs to see it and to end it.

    `check_health` is cheap and knows only of death; `heartbeat` also finds out about a loop that stands still.
    """

    @property
    def process_ids(self) -> Sequence[int]:
        """Processes that compute for this engine; empty when it has none of its own."""

    async def heartbeat(self) -> None:
        """Return once the engine's loop has answered, which it does between two steps. Raises EngineDeadError."""

    async def kill(self) -> None:
        """End it at once in whatever state it is; what runs ends with EngineDeadError. Idempotent."""
