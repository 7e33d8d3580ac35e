"""The `text-generation` package (TGI's own client), unchanged, against a running gateway."""

from __future__ import annotations

from typing import Any

import pytest
import text_generation
from text_generation import errors
from text_generation.types import Grammar, GrammarType

from tests.serve.clients.conftest import Served, blocking

# The package calls `.dict()` of its own pydantic models.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")

PROMPT = "Who are you?"


@pytest.fixture
def client(served: Served) -> Any:
    return text_generation.Client(f"{served.url}/lorax")


@pytest.fixture
def risk_client(served: Served) -> Any:
    """This client cannot name an adapter: its address does."""
    return text_generation.Client(f"{served.url}/lorax/models/risk")


async def test_generate_asks_whom_the_address_names(served: Served, client: Any, risk_client: Any) -> None:
    for asked, speaker in ((client, "base"), (risk_client, served.version)):
        answer = await blocking(asked.generate, PROMPT, max_new_tokens=3)
        assert answer.generated_text == f"{speaker} " * 3
        assert answer.details.finish_reason.value == "length"
        assert answer.details.generated_tokens == 3
        assert all(token.logprob < 0 for token in answer.details.tokens)


async def test_every_argument_that_can_be_honoured_is(served: Served, risk_client: Any) -> None:
    answer = await blocking(
        risk_client.generate,
        PROMPT,
        do_sample=True,
        max_new_tokens=2,
        best_of=2,
        repetition_penalty=1.1,
        frequency_penalty=0.2,
        return_full_text=True,
        stop_sequences=["END"],
        temperature=0.7,
        top_k=4,
        top_p=0.9,
        truncate=4,
        top_n_tokens=1,
        grammar=Grammar(type=GrammarType.Regex, value="[a-z]+"),
    )
    assert answer.generated_text == PROMPT + f"{served.version} " * 2
    assert answer.details.top_tokens[0][0].id == 0
    assert len(answer.details.best_of_sequences) == 1
    request = served.server.engine.requests[-1]
    assert (request.sampling.frequency_penalty, len(request.prompt_token_ids)) == (0.2, 4)


async def test_a_stream_brings_tokens(served: Served, risk_client: Any) -> None:
    responses = await blocking(
        lambda: list(risk_client.generate_stream(PROMPT, max_new_tokens=3, top_n_tokens=1, seed=3))
    )
    assert (
        "".join(each.token.text for each in responses if not each.token.special) == f"{served.version} " * 3
    )
    assert responses[-1].generated_text == f"{served.version} " * 3
    assert (responses[-1].details.generated_tokens, responses[0].top_tokens[0].id) == (3, 0)


async def test_the_async_client_does_the_same(served: Served) -> None:
    client = text_generation.AsyncClient(f"{served.url}/lorax/models/{served.version}")
    answer = await client.generate(PROMPT, max_new_tokens=2)
    assert answer.generated_text == f"{served.version} " * 2
    responses = [each async for each in client.generate_stream(PROMPT, max_new_tokens=2)]
    assert responses[-1].generated_text == f"{served.version} " * 2
    with pytest.raises(errors.ValidationError):
        await client.generate(PROMPT, watermark=True)


async def test_an_unknown_adapter_is_not_found(served: Served) -> None:
    client = text_generation.Client(f"{served.url}/lorax/models/nobody/knows")
    with pytest.raises(errors.NotFoundError, match="nobody/knows"):
        await blocking(client.generate, PROMPT)
    with pytest.raises(errors.NotFoundError):
        await blocking(lambda: list(client.generate_stream(PROMPT)))


@pytest.mark.parametrize(
    "given",
    [{"watermark": True}, {"typical_p": 0.9}, {"decoder_input_details": True}, {"max_new_tokens": 100_000}],
)
async def test_what_cannot_be_honoured_is_a_validation_error(client: Any, given: dict[str, Any]) -> None:
    with pytest.raises(errors.ValidationError):
        await blocking(client.generate, PROMPT, **given)


async def test_a_full_queue_is_an_overloaded_error(served: Served, client: Any) -> None:
    await served.fill()
    with pytest.raises(errors.OverloadedError):
        await blocking(client.generate, PROMPT)


async def test_a_failure_in_the_engine_is_a_generation_error(served: Served, client: Any) -> None:
    served.script.fail_after_tokens = 1
    with pytest.raises(errors.GenerationError):
        await blocking(client.generate, PROMPT, max_new_tokens=3)
