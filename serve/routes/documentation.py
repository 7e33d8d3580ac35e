"""Pieces of the OpenAPI document that routes share."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from serve.schemas.lorax import LoraxErrorBody


def event_schema(description: str, **properties: dict[str, Any]) -> dict[str, Any]:
    """The content of a stream of server-sent events, for the document."""
    fields = {**properties, "data": {"type": "string", "description": "JSON"}}
    item = {"type": "object", "required": list(fields), "properties": fields}
    return {"text/event-stream": {"itemSchema": {"description": description, **item}}}


EVENTS = event_schema(
    "With stream: `delta` events, then one `done` event, or one `error` event.",
    event={"type": "string", "enum": ["delta", "done", "error"]},
)
OPENAI_EVENTS = event_schema("With stream: OpenAI's chunks, then [DONE].")
LORAX_EVENTS = event_schema(
    "With stream: one event for each token; the last has `generated_text`, or `error`."
)


class ProblemBody(BaseModel):
    """One finding of an adapter check, or the cause for which a probe refused an adapter."""

    code: str
    message: str
    subject: str


class ErrorFields(BaseModel):
    """What went wrong."""

    model_config = ConfigDict(extra="forbid")

    type: Literal[
        "invalid_request_error",
        "authentication_error",
        "permission_error",
        "not_found_error",
        "timeout_error",
        "conflict_error",
        "rate_limit_error",
        "engine_error",
        "unavailable_error",
        "storage_error",
        "server_error",
    ]
    code: str
    message: str
    param: str | None
    request_id: str
    problems: list[ProblemBody] | None = None
    probe: dict[str, float | int | str | None] | None = None


class ErrorBody(BaseModel):
    """Every error has this shape."""

    error: ErrorFields


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Documented error responses."""
    return {status: {"model": ErrorBody, "description": _MEANING[status]} for status in statuses}


def lorax_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The same in the shape of LoRAX and TGI; what the wire itself refuses keeps the gateway's."""
    shapes: dict[int, Any] = dict.fromkeys((400, 431), LoraxErrorBody | ErrorBody)
    return {
        status: {"model": shapes.get(status, LoraxErrorBody), "description": _MEANING[status]}
        for status in statuses
    }


_MEANING = {
    400: "The body is not JSON, the prompt does not fit the context, a schema cannot be compiled, or the Host is "
    "refused.",
    401: "The key is missing or wrong.",
    403: "The key may not do this, or the admin API is off on this address.",
    404: "No such base, adapter or version.",
    408: "The body did not arrive in time.",
    409: "Another change of the same adapter came first.",
    413: "The body is too large.",
    415: "Send Content-Type: application/json (PUT: application/x-tar).",
    422: "A field is unknown, missing or out of bounds.",
    424: "The engine failed on this request.",
    429: "The queue is full, or the key has used up a limit; see Retry-After.",
    431: "The head of the request is too large.",
    500: "The engine failed on this request.",
    502: "The engine refused the adapter.",
    503: "Starting, shutting down, or the engine is gone; see Retry-After.",
    504: "The request took longer than the server allows.",
    507: "No space is left for the adapter.",
}

# What the wire alone can make of any request: a refused Host, a head without end.
WIRE_ERRORS = errors(400, 431)
ERRORS = errors(400, 401, 404, 408, 413, 422, 429, 431, 500, 503, 504)
ADMIN_ERRORS = errors(400, 401, 403, 404, 408, 409, 413, 415, 422, 431, 502, 503, 507)
LORAX_WIRE_ERRORS = lorax_errors(400, 431)
LORAX_ERRORS = lorax_errors(*(int(status) for status in ERRORS), 424)
