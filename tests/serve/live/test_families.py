"""The DeepSeek families and the R1 distillations behind the gateway, each with the adapter that was trained for it.

What is served is compared with transformers and PEFT on the same weights.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.adapters.families import FAMILIES, Trained, train_family
from tests.serve.live.live_server import LiveServer
from tests.serve.live.test_fidelity import NUM_TOKENS, PROMPTS, QUESTIONS, TIE_NATS, Reference

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

INPUTS: list[dict[str, Any]] = [
    *({"prompt": prompt} for prompt in PROMPTS[:4]),
    *({"messages": [{"role": "user", "content": question}]} for question in QUESTIONS[:6]),
]
SAMPLING = {"max_tokens": NUM_TOKENS, "ignore_eos": True, "logprobs": 0, "temperature": 0, "reasoning": False}


@pytest.fixture(scope="module", params=FAMILIES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_family(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def server(trained: Trained) -> Iterator[LiveServer]:
    arguments = ("--base", str(trained.given), "--dtype", "float32", "--kv-cache-gib", "0.25")
    with LiveServer(trained.home, *arguments) as server:
        yield server


async def test_the_base_and_its_adapter_answer_as_in_transformers(server, trained):
    source = trained.outcome.adapter_folder.relative_to(trained.home / "adapters").as_posix()
    async with server.async_client() as client:
        loaded = await client.post("/admin/adapters", json={"name": "risk", "source": source})
        assert loaded.status_code == 201, loaded.text
        asked = [
            client.post("/generate", json={**body, **SAMPLING, "adapter": adapter})
            for adapter in (None, "risk")
            for body in INPUTS
        ]
        answers = [response.json() for response in await asyncio.gather(*asked)]
    tokens = [[token["id"] for token in answer["logprobs"]] for answer in answers]
    served_base, served_adapter = tokens[: len(INPUTS)], tokens[len(INPUTS) :]
    assert all(one != other for one, other in zip(served_base, served_adapter, strict=True))

    reference = Reference(trained.base, trained.outcome.adapter_folder)
    expect_same(reference, served_adapter)
    with reference.without_adapter():
        expect_same(reference, served_base)


def expect_same(reference: Reference, served: list[list[int]]) -> None:
    prompts = [reference.encode(body) for body in INPUTS]
    for body, prompt, found in zip(INPUTS, prompts, served, strict=True):
        (expected,) = reference.generate([prompt])
        if found != expected:  # then both were as likely, within rounding
            assert reference.gap(prompt, found, expected) < TIE_NATS, (body, found, expected)
