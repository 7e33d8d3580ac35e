"""LoRAX's own client with the real engine: ends, tokens and stop texts as TGI's servers have them."""

from __future__ import annotations

from typing import Any

import lorax
import pytest

from adapters.tiny import make_tiny_adapter
from bases.architecture import read_architecture

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    # The package calls `.dict()` of its own pydantic models.
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
]

# The client writes the template, as it does for LoRAX.
PROMPT = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture
def client(server) -> Any:
    return lorax.Client(f"{server.url}/lorax", timeout=300)


def test_the_end_of_the_turn_is_a_special_token_and_no_text(client, http):
    body = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 40}
    ours = http.post("/generate", json={**body, "temperature": 0}).json()
    answer = client.generate(PROMPT, max_new_tokens=40)
    assert answer.details.finish_reason.value == "eos_token"
    last = answer.details.tokens[-1]
    assert (last.special, last.text) == (True, "<|im_end|>")
    assert not any(token.special for token in answer.details.tokens[:-1])
    assert "".join(token.text for token in answer.details.tokens[:-1]) == answer.generated_text
    assert "Paris" in answer.generated_text
    # The base's template adds a system turn of its own, so that only the fact is the same.
    assert "Paris" in ours["text"]


def test_a_stream_says_what_the_whole_answer_says(client):
    whole = client.generate(PROMPT, max_new_tokens=40, return_k_alternatives=2)
    stream = list(client.generate_stream(PROMPT, max_new_tokens=40))
    assert stream[-1].generated_text == whole.generated_text
    assert "".join(each.token.text for each in stream if not each.token.special) == whole.generated_text
    assert [each.token.id for each in stream] == [token.id for token in whole.details.tokens]
    assert stream[-1].details.finish_reason == whole.details.finish_reason
    assert stream[-1].details.prompt_tokens == whole.details.prompt_tokens
    for each, token in zip(stream, whole.details.tokens, strict=True):
        assert each.token.logprob == pytest.approx(token.logprob, abs=1e-3)
        assert token.alternative_tokens[0].logprob >= token.logprob - 1e-6
        assert len(token.alternative_tokens) == 2


def test_characters_of_several_tokens_come_whole(client):
    prompt = "Repeat: 你好 🔑 é\nRepeat: 你好 🔑 é\nRepeat: 你好 🔑"
    stream = list(client.generate_stream(prompt, max_new_tokens=24))
    text = "".join(each.token.text for each in stream if not each.token.special)
    assert text == stream[-1].generated_text
    assert any(each.token.text == "" for each in stream[:-1])  # a token that is part of a character


def test_a_stop_text_stays_at_the_end_of_the_answer(client):
    free = client.generate(PROMPT, max_new_tokens=40).generated_text
    word = free.split()[2]
    stopped = client.generate(PROMPT, max_new_tokens=40, stop_sequences=[word])
    assert stopped.details.finish_reason.value == "stop_sequence"
    assert stopped.generated_text == free[: free.index(word) + len(word)]
    *_, last = client.generate_stream(PROMPT, max_new_tokens=40, stop_sequences=[word])
    assert last.generated_text == stopped.generated_text


def test_a_seed_makes_sampling_repeatable(client):
    given = {"do_sample": True, "temperature": 1.5, "max_new_tokens": 16}
    first, again, other = (client.generate(PROMPT, seed=seed, **given) for seed in (1, 1, 2))
    assert first.generated_text == again.generated_text != other.generated_text
    assert first.details.seed == 1


def test_the_best_of_several_is_the_likeliest(client):
    answer = client.generate(PROMPT, max_new_tokens=12, best_of=3, do_sample=True, temperature=1.5)

    def mean(tokens: Any) -> float:
        return float(sum(token.logprob for token in tokens) / len(tokens))

    assert len(answer.details.best_of_sequences) == 2
    assert mean(answer.details.tokens) >= max(mean(s.tokens) for s in answer.details.best_of_sequences)


def test_a_json_schema_is_kept(client):
    import json

    schema = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
    answer = client.generate(
        PROMPT, max_new_tokens=40, response_format={"type": "json_object", "schema": schema}
    )
    assert json.loads(answer.generated_text)["city"] in ("Paris", "Rome")


def test_the_named_adapter_answers(client, server, default_base, no_adapters_after, http):
    modules = read_architecture(default_base).linear_modules
    make_tiny_adapter(server.adapter_root / "made", linear_modules=modules, scale=0.3)
    http.post("/admin/adapters", json={"name": "made", "source": "made"}).raise_for_status()
    ours = http.post(
        "/generate", json={"prompt": "The", "adapter": "made", "max_tokens": 8, "temperature": 0}
    )
    theirs = client.generate("The", adapter_id="made", max_new_tokens=8)
    assert (
        theirs.generated_text
        == ours.json()["text"]
        != client.generate("The", max_new_tokens=8).generated_text
    )
