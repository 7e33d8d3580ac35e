"""The `openai` package, unchanged, against a running gateway: whole, streamed, async, and its errors."""

from __future__ import annotations

import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from tests.serve.clients.conftest import Served, blocking

MESSAGE: ChatCompletionUserMessageParam = {"role": "user", "content": "Who are you?"}


async def test_the_client_lists_and_asks_models(served: Served) -> None:
    def ask() -> tuple[list[str], list[str | None]]:
        with openai.OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0) as client:
            names = [model.id for model in client.models.list()]
            answers = [
                client.chat.completions.create(model=name, messages=[MESSAGE], max_tokens=2)
                .choices[0]
                .message.content
                for name in names
            ]
            return names, answers

    names, answers = await blocking(ask)
    assert names == ["scripted", "risk", served.version]
    assert answers == ["base base ", f"{served.version} " * 2, f"{served.version} " * 2]


async def test_the_async_client_streams_chat_and_completions(served: Served) -> None:
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0) as client:
        chat = await client.chat.completions.create(
            model="risk", messages=[MESSAGE], max_tokens=3, stream=True
        )
        said = [chunk.choices[0].delta.content or "" async for chunk in chat]
        assert "".join(said) == f"{served.version} " * 3
        completion = await client.completions.create(model="risk", prompt="x", max_tokens=2, stream=True)
        assert "".join([chunk.choices[0].text async for chunk in completion]) == f"{served.version} " * 2


async def test_errors_are_the_clients_own(served: Served) -> None:
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0) as client:
        with pytest.raises(openai.NotFoundError, match="nobody"):
            await client.chat.completions.create(model="nobody", messages=[MESSAGE])
        with pytest.raises(openai.UnprocessableEntityError):
            await client.chat.completions.create(model="risk", messages=[MESSAGE], temperature=9)
        await served.fill()
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(model="risk", messages=[MESSAGE], max_tokens=2)
        assert int(refused.value.response.headers["retry-after"]) >= 1
