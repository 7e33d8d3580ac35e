"""What can go wrong between a request and its answer. Routes alone map these to HTTP (serve/http/errors.py).

ServeError
├── RequestError                the client's request is at fault; `param` names the field
│   ├── InvalidRequestError     a value that can never be served
│   ├── ContextLengthError      prompt + max_tokens do not fit the context
│   ├── EngineRefusedError      the engine's own check refused the request
│   ├── UnknownModelError       no base, alias or live version of that name
│   ├── GrammarError            a schema, regex or choice that cannot be compiled in time
│   ├── ReviewRefusedError      a reviewer refused the prompt or the answer
│   ├── UploadRefusedError      an upload that is not the tar of one adapter
│   ├── OperationMissingError   no operation of that id
│   ├── IdempotencyConflictError  the key belongs to another request
│   ├── BodyTooLargeError       more bytes than the limit
│   └── BodyTimeoutError        the body did not arrive in time
├── AccessError
│   ├── MissingKeyError         no admin key, or a wrong one
│   ├── AdminDisabledError      the admin API is off on this address
│   └── ScopeError              the key is right and may not do this
├── BusyError                   try again later; `retry_after_seconds`
│   ├── QueueFullError          the waiting queue is at its bound
│   ├── RateLimitedError        the caller's key has used up what it may take
│   ├── KeysUnavailableError    the registry has not said for too long which keys are good
│   └── DrainingError           the server is shutting down
├── LifecycleError              an adapter verb failed
│   ├── AdapterMissingError     no such adapter
│   ├── ProbeFailedError        the loaded adapter does not do what it should
│   └── UnloadFailedError       the engine still holds the adapter
├── EngineError
│   ├── EngineNotReadyError     still starting, or restarting
│   ├── EngineDeadError         the engine process is gone
│   └── GenerationFailedError   this one request failed inside the engine
├── DeadlineExceededError       the request took longer than the server allows
│   ├── QueueTimeoutError       it waited too long for its turn
│   └── FirstTokenTimeoutError  its stream did not begin in time
├── ReviewFailedError           a reviewer failed, and nothing passes unreviewed
├── RequestAbortedError         the server ended this request (drain limit, adapter unloaded)
├── SettingsError               a setting that cannot work, found at start
└── StartTrialError             a start that was to be timed did not come to its end
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from bases.errors import HotswapError


class ServeError(HotswapError):
    """Root of the gateway's errors."""

    code: ClassVar[str] = "serve_error"


class RequestError(ServeError):
    """The client's request is at fault."""

    code: ClassVar[str] = "invalid_request"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class InvalidRequestError(RequestError):
    """A value that can never be served."""

    code: ClassVar[str] = "invalid_value"


class ContextLengthError(RequestError):
    """The prompt and the tokens asked for do not fit the model's context."""

    code: ClassVar[str] = "context_length_exceeded"


class EngineRefusedError(RequestError):
    """The engine's own check refused the request before it was started."""

    code: ClassVar[str] = "refused_by_engine"


class UnknownModelError(RequestError):
    """No base, alias or live version has that name; the base never answers in its place."""

    code: ClassVar[str] = "model_not_found"


class GrammarError(RequestError):
    """A schema, regex or choice list that cannot be compiled within the time allowed."""

    code: ClassVar[str] = "invalid_grammar"


class ReviewRefusedError(RequestError):
    """A reviewer let the prompt or the answer not pass."""

    code: ClassVar[str] = "review_refused"


class UploadRefusedError(RequestError):
    """The body of an upload is not the tar, plain or in gzip, of one adapter's files."""

    code: ClassVar[str] = "upload_refused"


class OperationMissingError(RequestError):
    """No operation of that id is known (any more)."""

    code: ClassVar[str] = "operation_not_found"


class IdempotencyConflictError(RequestError):
    """The idempotency key was used for another request before."""

    code: ClassVar[str] = "idempotency_key_reused"


class BodyTooLargeError(RequestError):
    """The request body holds more bytes than the server accepts."""

    code: ClassVar[str] = "body_too_large"


class BodyTimeoutError(RequestError):
    """The request body did not arrive within the receive deadline."""

    code: ClassVar[str] = "body_timeout"


class AccessError(ServeError):
    """The caller may not do this."""

    code: ClassVar[str] = "access_denied"


class MissingKeyError(AccessError):
    """No admin key was sent, or it is not the right one."""

    code: ClassVar[str] = "invalid_api_key"


class AdminDisabledError(AccessError):
    """The admin API is off: no admin key is configured and the server is reachable from outside."""

    code: ClassVar[str] = "admin_disabled"


class ScopeError(AccessError):
    """The key is known, and what is asked is not among what it may do; `caller` is whose it is."""

    code: ClassVar[str] = "insufficient_scope"

    def __init__(self, message: str, *, caller: str) -> None:
        super().__init__(message)
        self.caller = caller


class BusyError(ServeError):
    """Not now; ask again after `retry_after_seconds`."""

    code: ClassVar[str] = "busy"

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class QueueFullError(BusyError):
    """The waiting queue is at its bound of requests or prompt tokens."""

    code: ClassVar[str] = "queue_full"


class RateLimitedError(BusyError):
    """The caller's key has used up what it may take for now; `headers` say when it may take more."""

    code: ClassVar[str] = "rate_limited"

    headers: Mapping[str, str] = {}

    def __init__(
        self, message: str, *, retry_after_seconds: int, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.headers = dict(headers or {})


class KeysUnavailableError(BusyError):
    """The registry has not answered for so long that no key of it is believed any more."""

    code: ClassVar[str] = "keys_unavailable"


class DrainingError(BusyError):
    """The server is shutting down and takes no new work."""

    code: ClassVar[str] = "draining"


class LifecycleError(ServeError):
    """A verb on an adapter failed; whatever was serving before still serves."""

    code: ClassVar[str] = "adapter_error"


class AdapterMissingError(LifecycleError):
    """No adapter of that name is registered."""

    code: ClassVar[str] = "adapter_not_found"


class ProbeFailedError(LifecycleError):
    """The adapter was loaded, but what it answers is not what it should answer.

    `cause` is one of serve.lifecycle.verdict.Cause, or "not_measured"; `numbers` is what was measured.
    """

    code: ClassVar[str] = "probe_failed"

    cause: str = "not_measured"
    numbers: Mapping[str, float | int | str | None] | None = None

    def __init__(
        self,
        message: str,
        *,
        cause: str = "not_measured",
        numbers: Mapping[str, float | int | str | None] | None = None,
    ) -> None:
        super().__init__(message)
        self.cause = cause
        self.numbers = numbers


class UnloadFailedError(LifecycleError):
    """The engine was told to unload the adapter and still holds it."""

    code: ClassVar[str] = "unload_failed"


class EngineError(ServeError):
    """The engine could not answer."""

    code: ClassVar[str] = "engine_error"


class EngineNotReadyError(EngineError):
    """The engine is starting."""

    code: ClassVar[str] = "engine_not_ready"


class EngineDeadError(EngineError):
    """The engine process is gone."""

    code: ClassVar[str] = "engine_dead"


class GenerationFailedError(EngineError):
    """This one request failed inside the engine; others go on."""

    code: ClassVar[str] = "generation_failed"


class DeadlineExceededError(ServeError):
    """The request took longer than the server's limit."""

    code: ClassVar[str] = "deadline_exceeded"


class QueueTimeoutError(DeadlineExceededError):
    """The request waited longer for its turn than the server's limit, and never reached the engine."""


class FirstTokenTimeoutError(DeadlineExceededError):
    """The stream had no token within the server's limit for the first one."""


class RequestAbortedError(ServeError):
    """The server ended a running request, and says why."""

    code: ClassVar[str] = "aborted"


class ReviewFailedError(ServeError):
    """A reviewer failed, and nothing passes unreviewed."""

    code: ClassVar[str] = "review_failed"


class SettingsError(ServeError):
    """A setting that cannot work; found before anything is started."""

    code: ClassVar[str] = "invalid_settings"


class StartTrialError(ServeError):
    """The gateway, started to see how long that takes, did not become ready."""

    code: ClassVar[str] = "start_trial_failed"
