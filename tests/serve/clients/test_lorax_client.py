"""The `lorax-client` package, unchanged, against a running gateway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lorax
import pytest
from lorax import errors

from tests.serve.clients.conftest import Served, blocking

# The package calls `.dict()` of its own pydantic models.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")

PROMPT = "Who are you?"
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}}


@pytest.fixture
def client(served: Served) -> Any:
    return lorax.Client(f"{served.url}/lorax")


@pytest.fixture
def async_client(served: Served) -> Any:
    return lorax.AsyncClient(f"{served.url}/lorax")


async def test_generate_asks_the_base_and_each_adapter(served: Served, client: Any) -> None:
    for given, speaker in (
        ({}, "base"),
        ({"adapter_id": "__base__"}, "base"),
        ({"adapter_id": "risk"}, served.version),
        ({"adapter_id": "risk", "adapter_source": "local", "api_token": "unused"}, served.version),
        ({"adapter_id": served.version, "adapter_source": "hub"}, served.version),
    ):
        answer = await blocking(client.generate, PROMPT, max_new_tokens=3, **given)
        assert answer.generated_text == f"{speaker} " * 3
        details = answer.details
        assert details.finish_reason.value == "length"
        assert (details.prompt_tokens, details.generated_tokens) == (len(PROMPT), 3)
        assert [token.id for token in details.tokens] == [0, 1, 2]
        assert all(token.logprob < 0 for token in details.tokens)


async def test_every_argument_that_can_be_honoured_is(served: Served, client: Any) -> None:
    answer = await blocking(
        client.generate,
        PROMPT,
        adapter_id="risk",
        do_sample=True,
        max_new_tokens=2,
        ignore_eos_token=True,
        repetition_penalty=1.1,
        return_full_text=True,
        seed=5,
        stop_sequences=["END"],
        temperature=0.7,
        top_k=4,
        top_p=0.9,
        truncate=4,
        response_format={"type": "json_object", "schema": SCHEMA},
        return_k_alternatives=1,
    )
    assert answer.generated_text == PROMPT + f"{served.version} " * 2
    assert (answer.details.seed, answer.details.prompt_tokens) == (5, 4)
    assert answer.details.tokens[0].alternative_tokens[0].id == 0
    sampling = served.server.engine.requests[-1].sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.seed) == (0.7, 4, 0.9, 5)
    assert (sampling.stop, sampling.repetition_penalty, sampling.ignore_eos) == (("END",), 1.1, True)
    assert sampling.constraint is not None


async def test_best_of_is_drawn(client: Any) -> None:
    answer = await blocking(client.generate, PROMPT, max_new_tokens=2, best_of=2, do_sample=True)
    assert len(answer.details.best_of_sequences) == 1


async def test_details_can_be_left_out(client: Any) -> None:
    answer = await blocking(client.generate, PROMPT, max_new_tokens=2, details=False)
    assert (answer.generated_text, answer.details) == ("base base ", None)


async def test_a_stream_brings_tokens(served: Served, client: Any) -> None:
    responses = await blocking(
        lambda: list(client.generate_stream(PROMPT, adapter_id="risk", max_new_tokens=3))
    )
    assert (
        "".join(each.token.text for each in responses if not each.token.special) == f"{served.version} " * 3
    )
    assert responses[-1].generated_text == f"{served.version} " * 3
    assert responses[-1].details.generated_tokens == 3
    assert all(each.generated_text is None and each.details is None for each in responses[:-1])


async def test_the_async_client_does_the_same(served: Served, async_client: Any) -> None:
    answer = await async_client.generate(PROMPT, adapter_id="risk", max_new_tokens=2)
    assert answer.generated_text == f"{served.version} " * 2
    responses = [
        each
        async for each in async_client.generate_stream(PROMPT, adapter_id=served.version, max_new_tokens=2)
    ]
    assert responses[-1].generated_text == f"{served.version} " * 2
    with pytest.raises(errors.NotFoundError, match="nobody"):
        await async_client.generate(PROMPT, adapter_id="nobody")
    with pytest.raises(errors.NotFoundError, match="nobody"):
        async for _ in async_client.generate_stream(PROMPT, adapter_id="nobody"):
            pass


async def test_an_unknown_adapter_is_not_found(client: Any) -> None:
    with pytest.raises(errors.NotFoundError, match="predibase/somebody"):
        await blocking(client.generate, PROMPT, adapter_id="predibase/somebody", adapter_source="hub")
    with pytest.raises(errors.NotFoundError):
        await blocking(lambda: list(client.generate_stream(PROMPT, adapter_id="somebody")))


@pytest.mark.parametrize(
    "given",
    [
        {"watermark": True},
        {"typical_p": 0.9},
        {"decoder_input_details": True},
        {"adapter_id": "risk", "adapter_source": "s3"},
        {"merged_adapters": lorax.types.MergedAdapters(ids=["risk"], weights=[1.0], density=0.5)},
        {"max_new_tokens": 100_000},
    ],
)
async def test_what_cannot_be_honoured_is_a_validation_error(client: Any, given: dict[str, Any]) -> None:
    with pytest.raises(errors.ValidationError):
        await blocking(client.generate, PROMPT, **given)


def whole(client: Any, **given: Any) -> Callable[[], Any]:
    return lambda: client.generate(PROMPT, **given)


def streamed(client: Any, **given: Any) -> Callable[[], Any]:
    return lambda: list(client.generate_stream(PROMPT, **given))


@pytest.mark.parametrize("ask", [whole, streamed])
async def test_a_full_queue_is_an_overloaded_error(served: Served, client: Any, ask: Any) -> None:
    await served.fill()
    with pytest.raises(errors.OverloadedError):
        await blocking(ask(client))


@pytest.mark.parametrize("ask", [whole, streamed])
async def test_a_failure_in_the_engine_is_a_generation_error(served: Served, client: Any, ask: Any) -> None:
    served.script.fail_after_tokens = 1
    with pytest.raises(errors.GenerationError):
        await blocking(ask(client, max_new_tokens=3))


async def test_a_stream_that_the_server_ends_is_incomplete(served: Served, client: Any) -> None:
    served.script.die_after_tokens = 1
    with pytest.raises(errors.IncompleteGenerationError):
        await blocking(streamed(client, max_new_tokens=3))
