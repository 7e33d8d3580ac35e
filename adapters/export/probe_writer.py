"""Makes the probe file's content from the adapter as it was saved: what the gateway replays after loading.

The gateway wants to tell "no effect", "wrong scale" and "another adapter" apart, so tokens are worth the more
the further the adapter moves their log probability, as long as neither value is too small to be compared.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from adapters.errors import ExportError
from adapters.export.continuation import continue_greedily, score_answers
from adapters.export.fidelity import Answer
from adapters.probe import MAX_PROBE_BYTES, Probe, ProbeCase

# The same float32 weights in transformers and in vLLM differ by at most some 1e-4 nats (docs/export.md).
FLOAT32_TOLERANCE_NATS = 0.02
# Below this a log probability is mostly rounding, and engines report only the likeliest tokens.
MIN_LOGPROB = -15.0
# Where the best two tokens are closer, an engine may take the other one and continue another text.
UNDECIDED_NATS = 0.05
MAX_PROMPT_TOKENS = 4096
# Bounds the time: prompts are read twice, under the adapter and under the base.
MAX_TOKENS_READ = 1000


def make_probe(
    served: Any,
    *,
    prompts: Sequence[Sequence[int]],
    fingerprint: str,
    num_cases: int,
    num_tokens: int,
    end_token_ids: Collection[int],
) -> Probe:
    """The probe of the PEFT model `served`, the base in float32 with the saved adapter on it.

    Of `prompts` (token ids), those that the adapter moves most become cases, `num_cases` at most. Raises
    ExportError when there is no prompt that can be read.
    """
    candidates = choose_candidates(prompts, max_candidates=2 * num_cases)
    if not candidates:
        raise ExportError(
            f"No prompt for the probe: {len(prompts)} were given, none of 1 to {MAX_PROMPT_TOKENS} tokens."
        )
    candidates.sort(key=len)  # like lengths side by side: less padding
    # The memory of a batch grows with its longest prompt.
    batch_size = max(1, min(16, MAX_PROMPT_TOKENS // max(map(len, candidates))))
    answers = continue_greedily(served, candidates, num_tokens=num_tokens, batch_size=batch_size)
    answers = [_shortened(answer, end_token_ids) for answer in answers]
    with served.disable_adapter():
        base_answers = score_answers(served, candidates, answers, batch_size=batch_size)
    ranked = sorted(
        zip(candidates, answers, base_answers, strict=True),
        key=lambda case: _worth(case[1], case[2]),
        reverse=True,
    )
    cases = [
        ProbeCase(
            prompt_token_ids=list(prompt),
            expected_token_ids=list(answer.token_ids),
            adapter_logprobs=[min(value, 0.0) for value in answer.logprobs],
            base_logprobs=[min(value, 0.0) for value in base.logprobs],
        )
        for prompt, answer, base in ranked[:num_cases]
    ]
    probe = Probe(
        base_fingerprint=fingerprint, dtype="float32", tolerance=FLOAT32_TOLERANCE_NATS, cases=cases
    )
    while len(probe.model_dump_json()) >= MAX_PROBE_BYTES:
        probe = probe.model_copy(update={"cases": probe.cases[:-1]})
    return probe


def choose_candidates(prompts: Sequence[Sequence[int]], *, max_candidates: int) -> list[Sequence[int]]:
    """Different prompts in their order, as many as fit the bounds on number and tokens; at least one."""
    chosen: dict[tuple[int, ...], None] = {}
    num_tokens = 0
    for prompt in prompts:
        if not 1 <= len(prompt) <= MAX_PROMPT_TOKENS or tuple(prompt) in chosen:
            continue
        if chosen and num_tokens + len(prompt) > MAX_TOKENS_READ:
            continue
        chosen[tuple(prompt)] = None
        num_tokens += len(prompt)
        if len(chosen) == max_candidates:
            break
    return list(chosen)


def largest_effect(probe: Probe) -> float:
    """The largest difference between adapter and base over all tokens, in nats."""
    return max(
        abs(adapter - base)
        for case in probe.cases
        for adapter, base in zip(case.adapter_logprobs, case.base_logprobs, strict=True)
    )


def _shortened(answer: Answer, end_token_ids: Collection[int]) -> Answer:
    """Up to the first end token or undecided token, that one included."""
    for index, (token, margin) in enumerate(zip(answer.token_ids, answer.margins, strict=True)):
        if token in end_token_ids or margin < UNDECIDED_NATS:
            end = index + 1
            return Answer(answer.token_ids[:end], answer.logprobs[:end], answer.margins[:end])
    return answer


def _worth(adapter: Answer, base: Answer) -> float:
    return sum(
        min(abs(one - other), 5.0)
        for one, other in zip(adapter.logprobs, base.logprobs, strict=True)
        if min(one, other) > MIN_LOGPROB
    )
