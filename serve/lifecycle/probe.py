"""Asks a freshly loaded adapter something, before any client can.

Two probes. With `hotswap_probe.json` (written by the trainer) the recorded prompts are replayed and must give
the recorded tokens and logprobs. Without it, a few fixed prompts must get other logprobs than the base gives:
servers have answered 200 to a load and gone on serving the base (vllm#34186, #34591, #48019, #55193).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adapters.probe import Probe
from serve.engine.protocol import AdapterHandle, Engine, EngineRequest, Sampling, TokenLogprob
from serve.errors import ProbeFailedError

EFFECT_PROMPTS = ("The answer is", "Dear customer, thank you for", "def main():\n    ")
EFFECT_TOP = 5
# Two runs of the same weights in different batches differ by rounding; an adapter that works differs by more.
MIN_EFFECT_NATS = 1e-6


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a probe measured."""

    kind: str  # "effect" or "replay"
    max_difference_nats: float  # effect: from the base; replay: from the recorded values
    num_tokens: int


class AdapterProbe:
    """Probes adapters on one engine; remembers what the base answers to the fixed prompts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._base: list[list[TokenLogprob]] | None = None
        self._count = 0

    async def effect(self, adapter: AdapterHandle) -> ProbeResult:
        """Raises ProbeFailedError when the adapter leaves every logprob as the base has it."""
        prompts = [self._engine.codec.encode(text, parse_special=False) for text in EFFECT_PROMPTS]
        if self._base is None:
            self._base = [await self._ask(prompt, 1, None) for prompt in prompts]
        difference = 0.0
        for prompt, base in zip(prompts, self._base, strict=True):
            difference = max(difference, _difference(base, await self._ask(prompt, 1, adapter)))
        if difference <= MIN_EFFECT_NATS:
            raise ProbeFailedError(
                f"adapter {adapter.name} changes nothing: over {len(prompts)} prompts its logprobs are within "
                f"{MIN_EFFECT_NATS:g} of the base's; it was probably trained on other module names or not at all"
            )
        return ProbeResult("effect", difference, len(prompts))

    async def replay(self, adapter: AdapterHandle, probe: Probe) -> ProbeResult:
        """Raises ProbeFailedError when the engine's logprobs are not those of the training."""
        worst, num_tokens = 0.0, 0
        for number, case in enumerate(probe.cases):
            answered = await self._ask(case.prompt_token_ids, len(case.expected_token_ids), adapter)
            expected = zip(case.expected_token_ids, case.adapter_logprobs, strict=True)
            for position, (token_id, logprob) in enumerate(expected):
                found = _logprob_of(answered, position, token_id)
                difference = abs(found - logprob) if found is not None else float("inf")
                worst = max(worst, difference)
                num_tokens += 1
                if difference > probe.tolerance:
                    shown = "not among the likeliest" if found is None else f"{found:.4f}"
                    raise ProbeFailedError(
                        f"adapter {adapter.name} does not answer as it did in training: case {number}, token "
                        f"{position}: logprob {shown}, recorded {logprob:.4f} (base "
                        f"{case.base_logprobs[position]:.4f}), tolerance {probe.tolerance:g}"
                    )
                if answered[position].token_id != token_id:
                    break  # a tie went the other way: what follows stands on another text
        return ProbeResult("replay", worst, num_tokens)

    async def _ask(
        self, prompt: Sequence[int], num_tokens: int, adapter: AdapterHandle | None
    ) -> list[TokenLogprob]:
        self._count += 1
        request = EngineRequest(
            request_id=f"probe-{self._count}",
            prompt_token_ids=prompt,
            sampling=Sampling(max_tokens=num_tokens, temperature=0.0, logprobs=EFFECT_TOP, ignore_eos=True),
            adapter=adapter,
            stream=False,
        )
        answered: list[TokenLogprob] = []
        async for output in self._engine.generate(request):
            for delta in output.deltas:
                answered.extend(delta.logprobs)
        if len(answered) < num_tokens:
            raise ProbeFailedError(f"the engine gave {len(answered)} of {num_tokens} tokens to a probe")
        return answered


def _difference(one: Sequence[TokenLogprob], other: Sequence[TokenLogprob]) -> float:
    """Largest difference over the tokens both name; infinite when they name different ones first."""
    largest = 0.0
    for a, b in zip(one, other, strict=True):
        left, right = _by_token(a), _by_token(b)
        shared = left.keys() & right.keys()
        if not shared or left.keys() != right.keys():
            largest = float("inf")
        largest = max([largest, *(abs(left[token] - right[token]) for token in shared)])
    return largest


def _by_token(token: TokenLogprob) -> dict[int, float]:
    return {token.token_id: token.logprob, **{token_id: logprob for token_id, _, logprob in token.top}}


def _logprob_of(answered: Sequence[TokenLogprob], position: int, token_id: int) -> float | None:
    if position >= len(answered):
        return None
    return _by_token(answered[position]).get(token_id)
