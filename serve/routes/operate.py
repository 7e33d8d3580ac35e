"""How a route carries out a verb: as an operation that is waited for, or followed later."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request
from starlette.responses import Response

from adapters.name import parse_alias
from serve.gateway import Gateway
from serve.http.errors import headers_of, json_response
from serve.http.request_id import request_id_of
from serve.operations.operation import Answer, Operation, Order
from serve.operations.operations import fingerprint
from serve.routes.audit import note_operation
from serve.routes.dependencies import AdminDep, GatewayDep
from serve.routes.documentation import errors
from serve.schemas.operations import OperationView, operation_fields

DEFAULT_WAIT_SECONDS = 60.0
MAX_WAIT_SECONDS = 600.0
OPERATION_HEADER = "X-Operation-Id"
KEY_PATTERN = r"^[A-Za-z0-9._:-]{1,128}$"

ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "model": OperationView,
        "description": "It goes on; `Location` says where to look. A client that leaves ends nothing.",
        "headers": {"Location": {"schema": {"type": "string"}}},
    },
    **errors(500, 504),
}


@dataclass(frozen=True, slots=True)
class Waiting:
    """How the client wants to be answered."""

    seconds: float
    key: str | None


async def _waiting(
    wait: Annotated[
        float | None,
        Query(
            ge=0,
            le=MAX_WAIT_SECONDS,
            allow_inf_nan=False,
            description=f"Seconds to wait for the end; after that 202 with the operation. Default: "
            f"{DEFAULT_WAIT_SECONDS:g}, with `Prefer: respond-async` 0.",
        ),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        Header(
            pattern=KEY_PATTERN,
            min_length=1,
            max_length=128,
            description="Of your making, one for each request: sent again with it, the same request is answered by "
            "the same operation for a day. Another request with it is 409.",
        ),
    ] = None,
    prefer: Annotated[str | None, Header(description="`respond-async`: as wait=0.", max_length=256)] = None,
) -> Waiting:
    if wait is None:
        wait = 0.0 if "respond-async" in (prefer or "").lower() else DEFAULT_WAIT_SECONDS
    return Waiting(wait, idempotency_key)


WaitingDep = Annotated[Waiting, Depends(_waiting)]


@dataclass(frozen=True, slots=True)
class VerbCall:
    """One call of a route that carries out a verb: what all of them ask for."""

    gateway: Gateway
    request: Request
    waiting: Waiting
    actor: str  # for the audit log

    async def operate(
        self, action: str, name: str, work: Callable[[Operation], Awaitable[Answer]], asked: Mapping[str, Any]
    ) -> Response:
        """Begin an operation on `name`, or find the one that this request began before, and answer.

        `asked` is everything else that the request asks for. Raises AdapterNameError, IdempotencyConflictError,
        DrainingError, RegistryError.
        """
        operation, _ = await begin(
            self.gateway,
            self.request,
            self.waiting,
            action=action,
            name=name,
            actor=self.actor,
            asked=asked,
            work=work,
        )
        await operation.wait(self.waiting.seconds)
        return answer_of(operation, self.request)


async def _verb_call(actor: AdminDep, gateway: GatewayDep, request: Request, waiting: WaitingDep) -> VerbCall:
    return VerbCall(gateway, request, waiting, actor)


VerbCallDep = Annotated[VerbCall, Depends(_verb_call)]


async def begin(
    gateway: Gateway,
    request: Request,
    waiting: Waiting,
    *,
    action: str,
    name: str,
    actor: str,
    asked: Mapping[str, Any],
    work: Callable[[Operation], Awaitable[Answer]],
) -> tuple[Operation, bool]:
    """The operation, and whether it was begun now and `work` is called; as `VerbCall.operate`."""
    parse_alias(name)
    gateway.adapters.check_open()
    order = Order(
        action=action,
        name=name,
        actor=actor,
        request_id=request_id_of(request.scope),
        key=waiting.key,
        fingerprint=fingerprint({"action": action, "name": name, **asked})
        if waiting.key is not None
        else None,
    )
    operation = await gateway.operations.start(order, work)
    begun = operation.order is order
    note_operation(request, begun=begun)
    return operation, begun


def answer_of(operation: Operation, request: Request) -> Response:
    """The answer of an ended operation as its verb answers; 202 for one that still runs."""
    headers = {OPERATION_HEADER: operation.id}
    answer = operation.answer
    if answer is None:
        headers["Location"] = f"/admin/operations/{operation.id}"
        return json_response(202, operation_fields(operation), headers)
    if operation.error is not None:
        headers = {**headers_of(operation.error), **headers}
    body = answer.body
    if answer.status >= 400:
        # Of this request, which may be another one than the first that had the key.
        body = {"error": {**body["error"], "request_id": request_id_of(request.scope)}}
    return json_response(answer.status, body, headers)
