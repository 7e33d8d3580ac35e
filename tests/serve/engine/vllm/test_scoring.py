"""Whose prompts may be scored in one go: what that takes is set aside by nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest

from serve.engine.vllm.openai import ObservedClient
from serve.engine.vllm.scoring import MAX_CLIENT_LOGITS_BYTES, check_prompt_logprobs
from serve.errors import ContextLengthError

VOCABULARY = MAX_CLIENT_LOGITS_BYTES // 8 // 1000  # of which 1,000 rows fit


class Client:
    """vLLM's, as far as the handlers' client asks it."""

    def __init__(self, step_tokens: int) -> None:
        model = SimpleNamespace(get_vocab_size=lambda: VOCABULARY, max_model_len=8192)
        scheduler = SimpleNamespace(max_num_batched_tokens=step_tokens)
        self.vllm_config = SimpleNamespace(model_config=model, scheduler_config=scheduler)
        self.asked = 0

    async def generate(self, prompt: Any, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        self.asked += 1
        yield prompt


def ask(client: Client, num_tokens: int, prompt_logprobs: int | None) -> None:
    codec: Any = SimpleNamespace(has_marks=lambda _: False)
    params = SimpleNamespace(prompt_logprobs=prompt_logprobs)
    stream = ObservedClient(client, codec).generate({"prompt_token_ids": [1] * num_tokens}, params, "req")

    async def read() -> None:
        async for _ in stream:
            pass

    asyncio.run(read())


def test_a_prompt_that_is_echoed_with_logprobs_has_to_fit_into_what_is_left_for_its_logits() -> None:
    client = Client(step_tokens=2048)
    ask(client, 1000, 0)
    with pytest.raises(ContextLengthError, match="at most 1000 tokens here, but this one has 1001"):
        ask(client, 1001, 0)
    ask(client, 1001, None)
    assert client.asked == 2


def test_an_engine_that_takes_a_prompt_in_small_steps_takes_any() -> None:
    check_prompt_logprobs(100_000, step_tokens=1000, vocab_size=VOCABULARY)
    with pytest.raises(ContextLengthError):
        check_prompt_logprobs(100_000, step_tokens=1001, vocab_size=VOCABULARY)
