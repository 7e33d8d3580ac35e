"""The engine around vLLM's client, with a client of the test's own; what vLLM does is seen in tests/serve/live."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from serve.engine.protocol import EngineFacts
from serve.engine.vllm.engine import VllmEngine
from serve.errors import GenerationFailedError
from tests.serve.engine.vllm.test_arguments import wishes

# Of torch about itself, when vLLM is imported.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")


@dataclass
class Client:
    """Answers every request in one step, with that reason to end."""

    finish_reason: str = "length"
    errored: bool = False

    def __post_init__(self) -> None:
        self.asked: list[tuple[list[int], Any, Any]] = []

    async def generate(
        self, prompt: Any, params: Any, request_id: str, *, lora_request: Any, **_: Any
    ) -> AsyncGenerator[Any, None]:
        self.asked.append((prompt["prompt_token_ids"], params, lora_request))
        yield SimpleNamespace(outputs=[SimpleNamespace(finish_reason=self.finish_reason)])


def engine_with(client: Client, *, context_tokens: int) -> VllmEngine:
    engine = VllmEngine(wishes())
    engine._client = client
    engine._facts = EngineFacts(
        model_name="smol",
        context_tokens=context_tokens,
        vocab_size=100,
        max_num_seqs=4,
        max_loras=2,
        max_cpu_loras=4,
        max_lora_rank=8,
        reasoning=False,
        dtype="float32",
    )
    return engine


@pytest.mark.parametrize("context_tokens", [8, 9, 4096])
async def test_before_it_is_up_the_base_has_answered_once_within_its_context(context_tokens: int) -> None:
    client = Client()
    await engine_with(client, context_tokens=context_tokens)._warm_up()
    ((prompt, params, lora_request),) = client.asked
    assert prompt
    assert params.max_tokens > 1  # a prompt and a step after it
    assert len(prompt) + params.max_tokens <= context_tokens
    assert lora_request is None


async def test_an_engine_that_cannot_answer_does_not_come_up() -> None:
    with pytest.raises(GenerationFailedError):
        await engine_with(Client("error"), context_tokens=4096)._warm_up()
