"""Every domain error has a status by design, and every error has one shape."""

from __future__ import annotations

import importlib
import pkgutil

import orjson
import pytest

import adapters
import bases
import serve
from adapters.check import check_adapter
from adapters.errors import AdapterCheckError
from bases.errors import HotswapError
from serve import errors
from serve.http.errors import (
    InternalError,
    body_of,
    error_body,
    error_type,
    headers_of,
    json_response,
    status_of,
)
from serve.routes.documentation import ErrorBody

# Every error of the code base. One that is added must be added here, with the status that was meant for it.
STATUSES = {
    # the client's request
    "RequestError": 422,
    "InvalidRequestError": 422,
    "InvalidJsonError": 400,
    "ContentTypeError": 415,
    "ContextLengthError": 400,
    "EngineRefusedError": 400,
    "GrammarError": 400,
    "UnknownModelError": 404,
    "OperationMissingError": 404,
    "IdempotencyConflictError": 409,
    "ReviewRefusedError": 400,
    "UploadRefusedError": 422,
    "BodyTooLargeError": 413,
    "BodyTimeoutError": 408,
    "ClientGoneError": 499,
    # the caller
    "AccessError": 403,
    "MissingKeyError": 401,
    "AdminDisabledError": 403,
    "ScopeError": 403,
    # not now
    "BusyError": 503,
    "QueueFullError": 429,
    "RateLimitedError": 429,
    "KeysUnavailableError": 503,
    "DrainingError": 503,
    "DeadlineExceededError": 504,
    "ReviewFailedError": 503,
    "QueueTimeoutError": 504,
    "FirstTokenTimeoutError": 504,
    "RequestAbortedError": 503,
    # the engine
    "EngineError": 500,
    "EngineNotReadyError": 503,
    "AdapterUnavailableError": 503,
    "EngineDeadError": 503,
    "GenerationFailedError": 500,
    # verbs on adapters
    "LifecycleError": 502,
    "AdapterMissingError": 404,
    "ProbeFailedError": 422,
    "ProbeRefusedError": 422,
    "UnloadFailedError": 502,
    "TransitionError": 500,
    # what an adapter is
    "AdapterError": 422,
    "AdapterNameError": 422,
    "AdapterSourceError": 422,
    "AdapterFileError": 422,
    "SafetensorsHeaderError": 422,
    "AdapterCheckError": 422,
    "AdapterNotFoundError": 404,
    "AdapterConflictError": 409,
    "AdapterChangedError": 409,
    "AdapterStoreError": 503,
    "AdapterStoreFullError": 507,
    "AdapterFetchError": 502,
    "AdapterStoreReadOnlyError": 503,
    "RegistryError": 503,
    "RegistryUrlError": 503,
    "RegistryUnavailableError": 503,
    "KeyNotFoundError": 404,
    # training, which no client can ask for
    "DataError": 422,
    "TrainingError": 422,
    "TrainingSettingsError": 422,
    "ExportError": 422,
    "MergeError": 422,
    "NotServableError": 422,
    "EvaluationError": 422,
    # found at start or on the command line; a bug where it reaches a client
    "ServeError": 500,
    "SettingsError": 500,
    "StartTrialError": 500,
    "InternalError": 500,
    "BaseModelError": 500,
    "BaseNotFoundError": 500,
    "BaseInvalidError": 500,
    "BaseConversionError": 500,
    "ChatTemplateError": 500,
    "UnknownCpuPartError": 500,
    "UnknownIsaError": 500,
    "UnknownKernelChoiceError": 500,
    "KernelBuildError": 500,
    "GatewayUnreachableError": 500,
    "GatewayRefusedError": 500,
}
# Only where PyTorch and vLLM are imported, which takes seconds; they define no errors of ours but these.
_HEAVY = ("serve.engine.cpu.", "serve.engine.grammar_worker")
_LIGHT = ("serve.engine.cpu.plugin", "serve.engine.cpu.lowbit.build")


def all_errors() -> dict[str, type[HotswapError]]:
    for package in (bases, adapters, serve):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            light = module.name in _LIGHT or not module.name.startswith(_HEAVY)
            if light and ".migrations." not in module.name:
                importlib.import_module(module.name)
    found: dict[str, type[HotswapError]] = {}
    waiting: list[type[HotswapError]] = [HotswapError]
    while waiting:
        kind = waiting.pop()
        for child in kind.__subclasses__():
            if child.__module__.split(".")[0] in ("bases", "adapters", "serve"):
                found[child.__name__] = child
                waiting.append(child)
    return found


def make(kind: type[HotswapError]) -> HotswapError:
    error = kind.__new__(kind)
    Exception.__init__(error, "what was wrong")
    error.__dict__.update({"param": None, "retry_after_seconds": 3})
    return error


def test_every_error_has_the_status_that_was_meant_for_it() -> None:
    assert {name: status_of(make(kind)) for name, kind in all_errors().items()} == STATUSES


def test_every_error_has_a_code_of_its_own_words() -> None:
    for name, kind in all_errors().items():
        assert kind.code.islower(), name
        assert kind.code.replace("_", "").isalpha(), name


@pytest.mark.parametrize("status", sorted({*STATUSES.values(), 405, 431} - {499}))
def test_every_status_has_a_documented_type(status: int) -> None:
    body = error_body(status, "code", "message", "req-1", param="prompt")
    parsed = ErrorBody.model_validate(body)
    assert parsed.error.type == error_type(status)
    assert (parsed.error.param, parsed.error.request_id) == ("prompt", "req-1")


def test_a_field_at_fault_is_named() -> None:
    body = body_of(errors.UnknownModelError("no such adapter", param="adapter"), "req-1")
    assert body == {
        "error": {
            "type": "not_found_error",
            "code": "model_not_found",
            "message": "no such adapter",
            "param": "adapter",
            "request_id": "req-1",
        }
    }


def test_a_failed_check_comes_with_every_problem(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    report = check_adapter(tmp_path / "empty", target=None)
    body = body_of(AdapterCheckError(report), "req-1")
    problems = body["error"]["problems"]
    assert len(problems) == len(report.problems) > 1
    assert all(set(problem) == {"code", "message", "subject"} for problem in problems)
    ErrorBody.model_validate(body)


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (errors.QueueFullError("full", retry_after_seconds=7), {"Retry-After": "7"}),
        (
            errors.DrainingError("down", retry_after_seconds=9),
            {"Retry-After": "9", "Connection": "close"},
        ),
        (errors.EngineNotReadyError("starting"), {"Retry-After": "5"}),
        (errors.RequestAbortedError("shutdown"), {"Retry-After": "5"}),
        (errors.MissingKeyError("who"), {"WWW-Authenticate": "Bearer"}),
        (errors.BodyTooLargeError("big"), {"Connection": "close"}),
        (errors.BodyTimeoutError("slow"), {"Connection": "close"}),
        (errors.UnknownModelError("who"), {}),
        (InternalError("bug"), {}),
    ],
)
def test_headers_go_with_their_error(error: HotswapError, headers: dict[str, str]) -> None:
    assert headers_of(error) == headers


def test_a_response_is_json() -> None:
    response = json_response(418, {"a": 1}, {"Retry-After": "1"})
    assert orjson.loads(bytes(response.body)) == {"a": 1}
    assert response.headers["content-type"] == "application/json"
    assert response.headers["retry-after"] == "1"
    assert response.status_code == 418
