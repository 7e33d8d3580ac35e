"""vLLM's types to and from the gateway's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

import orjson

from serve.engine.protocol import Constraint, Delta, EngineOutput, FinishReason, Sampling, TokenLogprob
from serve.errors import EngineRefusedError

_FINISH: dict[str, FinishReason] = {"stop": "stop", "length": "length", "abort": "abort", "error": "error"}


def sampling_params(sampling: Sampling, *, stream: bool) -> Any:
    """vLLM's SamplingParams. Raises EngineRefusedError for what vLLM does not take together, as `n` when greedy."""
    from vllm.exceptions import VLLMClientError
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    try:
        return SamplingParams(
            n=sampling.n,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            repetition_penalty=sampling.repetition_penalty,
            stop=list(sampling.stop) or None,
            include_stop_str_in_output=sampling.keep_stop,
            seed=sampling.seed,
            logprobs=sampling.logprobs,
            ignore_eos=sampling.ignore_eos,
            structured_outputs=_structured(sampling.constraint),
            output_kind=RequestOutputKind.DELTA if stream else RequestOutputKind.FINAL_ONLY,
        )
    except (VLLMClientError, ValueError) as error:
        raise EngineRefusedError(f"the engine refused the request: {error}"[:1000]) from None


def _structured(constraint: Constraint | None) -> Any:
    from vllm.sampling_params import StructuredOutputsParams

    match constraint:
        case None:
            return None
        case Constraint("json_schema", str() as schema):
            return StructuredOutputsParams(json=orjson.loads(schema))
        case Constraint("json_object"):
            return StructuredOutputsParams(json_object=True)
        case Constraint("regex", str() as regex):
            return StructuredOutputsParams(regex=regex)
        case Constraint(_, choices):
            return StructuredOutputsParams(choice=list(choices))


def engine_output(output: Any) -> EngineOutput:
    """One step of vLLM's RequestOutput; the engine's clock is read from the last one."""
    deltas = [
        Delta(
            index=part.index,
            text=part.text,
            token_ids=part.token_ids,
            logprobs=TokenLogprobs(part.token_ids, part.logprobs) if part.logprobs is not None else (),
            finish_reason=_FINISH.get(part.finish_reason) if part.finish_reason is not None else None,
            stop_reason=part.stop_reason,
        )
        for part in output.outputs
    ]
    if not output.finished:
        return EngineOutput(deltas)
    queue_seconds, ttft_seconds = engine_clock(output.metrics)
    return EngineOutput(deltas, queue_seconds, ttft_seconds)


def engine_clock(metrics: Any) -> tuple[float | None, float | None]:
    """(seconds in the engine's queue, seconds from arrival to the first token) of a finished request."""
    if metrics is None:
        return None, None
    queued = None
    if metrics.queued_ts > 0 and metrics.scheduled_ts > 0:
        queued = max(0.0, metrics.scheduled_ts - metrics.queued_ts)
    return queued, metrics.first_token_latency or None


def count_generated(client: Any, request_id: str) -> int:
    """Tokens that AsyncLLM has of a running request, over its sequences and prompts.

    vLLM's OpenAI handlers put a word in front of the gateway's id, and a list of prompts numbers behind it.
    """
    processor, count = client.output_processor, 0
    for external_id, internal_ids in processor.external_req_ids.items():
        if external_id.removeprefix("chatcmpl-").removeprefix("cmpl-").startswith(request_id):
            for internal_id in internal_ids:
                state = processor.request_states.get(internal_id)
                if state is not None and state.detokenizer is not None:
                    count += state.detokenizer.num_output_tokens()
    return count


class TokenLogprobs(Sequence[TokenLogprob]):
    """vLLM's log probabilities of some tokens, each turned into the gateway's when it is asked for.

    A long answer has a million of them, and whoever made all at once would hold up the event loop for that long.
    """

    def __init__(self, token_ids: Sequence[int], candidates: Sequence[Mapping[int, Any]]) -> None:
        self._token_ids = token_ids
        self._candidates = candidates

    def __len__(self) -> int:
        return min(len(self._token_ids), len(self._candidates))

    @overload
    def __getitem__(self, place: int) -> TokenLogprob: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[TokenLogprob, ...]: ...

    def __getitem__(self, place: int | slice) -> TokenLogprob | tuple[TokenLogprob, ...]:
        if isinstance(place, slice):
            return tuple(self[one] for one in range(*place.indices(len(self))))
        place = range(len(self))[place]
        token_id, candidates = self._token_ids[place], self._candidates[place]
        chosen = candidates[token_id]
        ranked = sorted(candidates.items(), key=lambda item: item[1].rank or 0)
        top = tuple((other, _text(value), float(value.logprob)) for other, value in ranked)
        return TokenLogprob(token_id, _text(chosen), float(chosen.logprob), top)


def _text(value: Any) -> str:
    return value.decoded_token or ""
