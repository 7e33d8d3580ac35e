"""Which adapter slot each row of a logits call belongs to, prompt logprobs included.

Defect (vLLM 0.32.0, CPU): `PunicaWrapperCPU.add_lora_logits` pairs the rows it is given with
`sampler_indices`, one slot per *sampled* token. `GPUModelRunner._get_prompt_logprobs_dict` also calls
`compute_logits`, with the prompt tokens of one request. The numbers of rows then differ and
`torch.einsum` raises, which ends the engine: any request with `prompt_logprobs` (or `echo` with `logprobs`)
in a batch with another one stops the server as soon as LoRA is enabled, adapters in use or not. When the
numbers happen to agree, or there is one sampled token, the rows silently take the wrong adapters.

Mend: the prompt rows are a slice of the step's hidden states, so the position of that slice in its storage
says which tokens they are, and the token mapping gives the slots. The sampled rows are a copy of their own.

Can go when vLLM passes the mapping with the prompt rows; `tests/serve/engine/cpu/test_engine_isolation.py`
says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def logit_slots(hidden: torch.Tensor, token_slots: torch.Tensor, sampler_slots: torch.Tensor) -> torch.Tensor:
    """The slot of each row of `hidden` (num_rows, hidden_size); -1 is the base model.

    `token_slots` (num_tokens,) covers the step's hidden states, `sampler_slots` (num_samples,) its samples.
    Raises ValueError for rows that are neither, if an adapter is in the batch: a guess could be wrong.
    """
    num_rows, num_tokens = hidden.shape[0], token_slots.shape[0]
    row_stride = max(hidden.stride(0), 1)
    storage_rows = hidden.untyped_storage().nbytes() // (hidden.element_size() * row_stride)
    first, remainder = divmod(hidden.storage_offset(), row_stride)
    if num_rows < storage_rows and remainder == 0 and first + num_rows <= num_tokens:
        return token_slots[first : first + num_rows]
    if num_rows == sampler_slots.shape[0]:
        return sampler_slots
    if num_rows == num_tokens:
        return token_slots
    if not bool((token_slots >= 0).any()):
        return token_slots.new_full((num_rows,), -1)
    raise ValueError(
        f"{num_rows} rows of hidden states are neither the step's {num_tokens} tokens nor its "
        f"{sampler_slots.shape[0]} samples; report the request that led here"
    )
