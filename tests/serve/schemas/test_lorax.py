"""LoRAX's and TGI's schema: neutral values are taken, and what cannot be honoured is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from serve.engine.protocol import Constraint, Sampling
from serve.schemas.lorax import LoraxBody, LoraxParameters, LoraxStreamBody

SCHEMA = {"type": "object", "properties": {"risk": {"type": "string"}}}
SCHEMA_TEXT = '{"type":"object","properties":{"risk":{"type":"string"}}}'
# Every field as the clients send it when its user asked for nothing.
NEUTRAL: dict[str, Any] = {
    "adapter_id": None,
    "adapter_source": None,
    "merged_adapters": None,
    "api_token": None,
    "best_of": None,
    "details": False,
    "do_sample": False,
    "max_new_tokens": None,
    "ignore_eos_token": False,
    "repetition_penalty": None,
    "frequency_penalty": None,
    "return_full_text": False,
    "seed": None,
    "stop": [],
    "temperature": None,
    "top_k": None,
    "top_p": None,
    "truncate": None,
    "typical_p": None,
    "watermark": False,
    "decoder_input_details": False,
    "return_k_alternatives": None,
    "top_n_tokens": None,
    "response_format": None,
    "grammar": None,
}


def parameters(**given: Any) -> LoraxParameters:
    return LoraxBody.model_validate({"inputs": "x", "parameters": given}).asked


def test_the_clients_defaults_ask_for_greedy_text_and_nothing_else() -> None:
    asked = parameters(**NEUTRAL)
    assert LoraxBody(inputs="x").asked == parameters()
    assert asked.sampling(7, stream=True) == parameters().sampling(7, stream=True)
    assert asked.sampling(7, stream=False) == Sampling(max_tokens=7, temperature=0.0, keep_stop=True)
    assert (asked.reference, asked.num_sequences, asked.constraint) == (None, 1, None)


@pytest.mark.parametrize(
    ("given", "temperature"),
    [
        ({}, 0.0),
        ({"temperature": 1.0}, 0.0),
        ({"top_p": 1.0}, 0.0),
        ({"do_sample": True}, 1.0),
        ({"top_k": 5}, 1.0),
        ({"top_p": 0.9}, 1.0),
        ({"temperature": 0.3}, 0.3),
        ({"temperature": 0.0, "do_sample": True, "top_k": 5}, 0.0),
    ],
)
def test_tokens_are_drawn_when_a_field_asks_for_it(given: dict[str, Any], temperature: float) -> None:
    assert parameters(**given).sampling(1, stream=False).temperature == temperature


def test_what_can_be_honoured_reaches_the_engine() -> None:
    given = {
        "do_sample": True,
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.4,
        "repetition_penalty": 1.2,
        "frequency_penalty": 0.1,
        "presence_penalty": -0.1,
        "stop": ["\n", "END"],
        "seed": 4,
        "ignore_eos_token": True,
        "details": True,
        "return_k_alternatives": 2,
        "top_n_tokens": 3,
    }
    assert parameters(**given).sampling(9, stream=False) == Sampling(
        max_tokens=9,
        temperature=0.5,
        top_k=3,
        top_p=0.4,
        repetition_penalty=1.2,
        frequency_penalty=0.1,
        presence_penalty=-0.1,
        stop=("\n", "END"),
        keep_stop=True,
        seed=4,
        ignore_eos=True,
        logprobs=3,
    )


def test_tokens_are_asked_of_the_engine_only_where_somebody_reads_them() -> None:
    assert parameters(return_k_alternatives=2).sampling(1, stream=False).logprobs is None
    assert parameters(return_k_alternatives=2).sampling(1, stream=True).logprobs == 2
    assert parameters(best_of=2, do_sample=True).sampling(1, stream=False).logprobs == 0


@pytest.mark.parametrize(
    "given",
    [
        {"watermark": True},
        {"watermark": 0},
        {"typical_p": 0.9},
        {"typical_p": "1"},
        {"decoder_input_details": True},
        {"adapter_source": "s3"},
        {"adapter_source": "pbase"},
        {"merged_adapters": {"ids": ["a", "b"], "weights": [0.5, 0.5], "density": 0.5}},
        {"adapter_parameters": {}},
        {"adapter_id": "../etc"},
        {"adapter_id": "a b"},
        {"best_of": 2},
        {"best_of": 2, "do_sample": True, "seed": 1},
        {"best_of": 17, "do_sample": True},
        {"top_p": 0.0},
        {"top_k": -1},
        {"temperature": -0.1},
        {"repetition_penalty": 0.0},
        {"max_new_tokens": 0},
        {"truncate": 0},
        {"stop": [""]},
        {"seed": -1},
        {"return_k_alternatives": 21},
        {"grammar": {"type": "json", "value": "[1]"}},
        {"grammar": {"type": "json", "value": "{"}},
        {"grammar": {"type": "regex", "value": ""}},
        {"grammar": {"type": "regex", "value": "a"}, "response_format": {"type": "json_object"}},
        {"response_format": {"type": "xml"}},
        {"adapters": "risk"},
    ],
)
def test_what_cannot_be_honoured_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        parameters(**given)


@pytest.mark.parametrize(
    "given", [{"typical_p": 1.0}, {"typical_p": 1}, {"adapter_source": "hub"}, {"api_token": "t"}]
)
def test_neutral_values_are_taken(given: dict[str, Any]) -> None:
    assert parameters(**given).sampling(1, stream=False) == parameters().sampling(1, stream=False)


@pytest.mark.parametrize(
    ("adapter_id", "reference"),
    [(None, None), ("", None), ("__base__", None), ("risk", "risk"), ("risk@3f2a91c0", "risk@3f2a91c0")],
)
def test_the_base_has_the_names_that_lorax_gives_it(adapter_id: str | None, reference: str | None) -> None:
    assert parameters(adapter_id=adapter_id).reference == reference


@pytest.mark.parametrize(
    ("given", "constraint"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, Constraint("json_object", "")),
        (
            {"response_format": {"type": "json_object", "schema": SCHEMA}},
            Constraint("json_schema", SCHEMA_TEXT),
        ),
        (
            {"response_format": {"type": "json_schema", "schema": SCHEMA}},
            Constraint("json_schema", SCHEMA_TEXT),
        ),
        ({"grammar": {"type": "json", "value": SCHEMA}}, Constraint("json_schema", SCHEMA_TEXT)),
        ({"grammar": {"type": "json", "value": SCHEMA_TEXT}}, Constraint("json_schema", SCHEMA_TEXT)),
        ({"grammar": {"type": "regex", "value": "[a-z]+"}}, Constraint("regex", "[a-z]+")),
    ],
)
def test_formats_and_grammars_are_constraints(given: dict[str, Any], constraint: Constraint | None) -> None:
    assert parameters(**given).constraint == constraint


def test_the_whole_route_refuses_to_stream() -> None:
    assert LoraxStreamBody(inputs="x", stream=True).stream
    assert LoraxBody(inputs="x", stream=False).stream is False
    with pytest.raises(ValidationError, match="generate_stream"):
        LoraxBody.model_validate({"inputs": "x", "stream": True})


@pytest.mark.parametrize("inputs", ["", "a\x00b", "\ud800", 3, None])
def test_inputs_are_text(inputs: object) -> None:
    with pytest.raises(ValidationError):
        LoraxBody.model_validate({"inputs": inputs})
