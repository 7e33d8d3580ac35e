"""Errors as the clients of LoRAX and TGI read them."""

from __future__ import annotations

import pytest

from bases.errors import HotswapError
from serve import errors
from serve.http.errors import InternalError, body_of, status_of
from serve.http.strict_json import InvalidJsonError
from serve.http.tgi_errors import speaks_tgi, tgi_error, tgi_stream_error

CASES: list[tuple[HotswapError, int, str]] = [
    (errors.ContextLengthError("x"), 422, "validation"),
    (errors.GrammarError("x"), 422, "validation"),
    (errors.EngineRefusedError("x"), 422, "validation"),
    (errors.InvalidRequestError("x"), 422, "validation"),
    (InvalidJsonError("x"), 400, "invalid_json"),
    (errors.UnknownModelError("x"), 404, "model_not_found"),
    (errors.QueueFullError("x", retry_after_seconds=1), 429, "overloaded"),
    (errors.DrainingError("x", retry_after_seconds=1), 503, "overloaded"),
    (errors.GenerationFailedError("x"), 424, "generation"),
    (errors.EngineDeadError("x"), 503, "engine_dead"),
    (errors.DeadlineExceededError("x"), 504, "deadline_exceeded"),
    (errors.RequestAbortedError("x"), 503, "incomplete_generation"),
    (InternalError("x"), 500, "internal_error"),
]


@pytest.mark.parametrize(
    ("error", "status", "error_type"), CASES, ids=[type(e).__name__ for e, _, _ in CASES]
)
def test_an_error_has_its_status_and_type(error: HotswapError, status: int, error_type: str) -> None:
    ours = body_of(error, "req-1")
    assert tgi_error(status_of(error), ours) == (status, {"error": "x", "error_type": error_type})


@pytest.mark.parametrize(
    "error", [error for error, _, _ in CASES], ids=[type(e).__name__ for e, _, _ in CASES]
)
def test_a_broken_stream_ends_with_a_type_that_the_clients_know(error: HotswapError) -> None:
    told = tgi_stream_error(status_of(error), body_of(error, "req-1"))
    assert told["error_type"] in {"generation", "incomplete_generation", "overloaded", "validation"}


def test_only_the_routes_of_the_dialect_are_answered_in_it() -> None:
    assert all(map(speaks_tgi, ("/lorax", "/lorax/", "/lorax/generate", "/lorax/models/risk")))
    assert not any(map(speaks_tgi, ("/", "/loraxes", "/generate", "/v1/lorax", "/admin/lorax")))
