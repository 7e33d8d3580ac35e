"""`huggingface_hub.InferenceClient`, which speaks TGI's dialect to an address of one's own."""

from __future__ import annotations

from typing import Any

import pytest
from huggingface_hub import InferenceClient

from tests.serve.clients.conftest import Served, blocking

PROMPT = "Who are you?"


@pytest.fixture
def client(served: Served) -> Any:
    return InferenceClient(model=f"{served.url}/lorax", token="unused")


async def test_text_generation_answers_with_the_adapter(served: Served, client: Any) -> None:
    answer = await blocking(
        client.text_generation, PROMPT, adapter_id="risk", max_new_tokens=2, details=True, top_n_tokens=1
    )
    assert answer.generated_text == f"{served.version} " * 2
    assert answer.details.finish_reason == "length"


async def test_text_generation_streams(served: Served, client: Any) -> None:
    pieces = await blocking(
        lambda: list(client.text_generation(PROMPT, adapter_id="risk", max_new_tokens=3, stream=True))
    )
    assert "".join(pieces) == f"{served.version} " * 3
