"""Log probabilities of tokens that are given, not sampled, from an engine that is made for sampling.

Two ways, equal within rounding. `prompt_logprobs` reads them all from one prefill; vLLM then leaves its prefix
cache unread for that request alone. It is used on a CPU whose mend is in place (docs/upstream-defects.md, 3:
without it such a request can end the engine), and only while the rows of logits, one for each prompt token,
stay small: nobody has set memory aside for them. Everywhere else each token is forced by a bias and read as the
sampled token's logprob, which vLLM takes before biases: one short request for each, the prefix from the cache.

Not used: `logprob_token_ids`. In a batch with it vLLM 0.32.0 gives every other request of that batch the
forced tokens' table, so that their own `logprobs` are lost (v1/sample/sampler.py).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from serve.engine.cpu.plugin import (
    ISOLATING_PARTS,
    PATCHES_VARIABLE,
    VERIFIED_VLLM_VERSIONS,
    requested_parts,
)
from serve.errors import ContextLengthError

# Of logits and their logarithms, both float32, for one prompt.
MAX_PROMPT_LOGITS_BYTES = 512 * 1024**2
MAX_CLIENT_LOGITS_BYTES = 1024**3
_BYTES_PER_LOGIT = 8
# Added to the one token that is to come; no model's logits are that far apart.
_CERTAIN = 1e6


def scores_prompts() -> bool:
    """Whether the engine that this process starts computes prompt logprobs safely: on a CPU, mended."""
    wanted = requested_parts(os.environ.get(PATCHES_VARIABLE, ""))
    if not wanted & ISOLATING_PARTS:
        return False
    import vllm
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu()) and vllm.__version__ in VERIFIED_VLLM_VERSIONS


def fits_one_prompt(num_tokens: int, *, vocab_size: int, context_tokens: int) -> bool:
    """Whether a prompt of that many tokens may be scored in one prefill; one token more is generated."""
    small = num_tokens * vocab_size * _BYTES_PER_LOGIT <= MAX_PROMPT_LOGITS_BYTES
    return small and num_tokens < context_tokens


def check_prompt_logprobs(num_tokens: int, *, step_tokens: int, vocab_size: int) -> None:
    """Refuse a client's prompt whose logits, of at most `step_tokens` at once, take more than is left for them.

    vLLM makes them beside everything that it has set memory aside for, and one that finds none ends the engine.
    Raises ContextLengthError.
    """
    most = MAX_CLIENT_LOGITS_BYTES // (vocab_size * _BYTES_PER_LOGIT)
    if min(num_tokens, step_tokens) > most:
        raise ContextLengthError(
            f"'prompt_logprobs', or 'echo' with 'logprobs', takes prompts of at most {most} tokens here, but this "
            f"one has {num_tokens}: the probabilities of all words at each of them have to fit into memory; "
            "shorten it or leave them out",
        )


def prompt_params() -> Any:
    """SamplingParams of a request whose prompt is scored."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    return SamplingParams(
        max_tokens=1,
        temperature=0.0,
        prompt_logprobs=0,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def forced_params(token_id: int) -> Any:
    """SamplingParams of a request that says `token_id` and tells how likely that was."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    return SamplingParams(
        max_tokens=1,
        temperature=0.0,
        logprobs=0,
        logit_bias={token_id: _CERTAIN},
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def prompt_logprobs(output: Any, token_ids: Sequence[int]) -> list[float]:
    """Log probabilities of `token_ids`, the last ones of the prompt of vLLM's RequestOutput."""
    rows = output.prompt_logprobs[-len(token_ids) :]
    return [float(row[token_id].logprob) for row, token_id in zip(rows, token_ids, strict=True)]


def forced_logprob(output: Any, token_id: int) -> float:
    """Log probability of the one token of vLLM's RequestOutput."""
    return float(output.outputs[0].logprobs[0][token_id].logprob)
