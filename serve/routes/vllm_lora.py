"""`/v1/load_lora_adapter`, `/v1/unload_lora_adapter`: vLLM's runtime loading, as the admin API does it.

vLLM offers these for local development only. Here they are the same verbs as `/admin/adapters`: checked, probed,
moved in one step, drained, and for whoever has the admin scope.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field, StringConstraints
from starlette.responses import PlainTextResponse, Response

from serve.routes.dependencies import AdminDep, AdminRoute, GatewayDep
from serve.routes.documentation import ADMIN_ERRORS
from serve.schemas.admin import NAME_PATTERN
from serve.schemas.neutral import only
from serve.schemas.sampling import StrictModel

router = APIRouter(prefix="/v1", route_class=AdminRoute, tags=["admin"], responses=ADMIN_ERRORS)

_SUCCESS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Done.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}

# Documented, and refused by the name's own rule, which says more than "does not match".
_Name = Annotated[
    str, StringConstraints(min_length=1, max_length=64), Field(json_schema_extra={"pattern": NAME_PATTERN})
]


class LoadLoraBody(StrictModel):
    """vLLM's request to load an adapter."""

    lora_name: _Name
    lora_path: Annotated[str, StringConstraints(min_length=1, max_length=1024)] = Field(
        description="A folder inside the adapter root; an absolute path may lead there.", examples=["risk"]
    )
    load_inplace: bool | None = Field(
        None,
        description="Taken and ignored: a name that exists is always replaced by a swap, never in place.",
    )
    is_3d_lora_weight: Annotated[Literal[False] | None, only(False, "3D LoRA weights are not offered")] = (
        Field(None, description="Cannot be asked for.")
    )


class UnloadLoraBody(StrictModel):
    """vLLM's request to unload an adapter."""

    lora_name: _Name
    lora_int_id: int | None = Field(None, description="Taken and ignored, as by vLLM: the name decides.")


@router.post(
    "/load_lora_adapter",
    summary="Load or replace an adapter, in vLLM's words",
    response_model=None,
    responses=_SUCCESS,
)
async def load_lora_adapter(body: LoadLoraBody, actor: AdminDep, gateway: GatewayDep) -> Response:
    """As POST /admin/adapters; answers when the version is live."""
    await gateway.adapters.load(body.lora_name, body.lora_path, actor=actor)
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' added successfully.")


@router.post(
    "/unload_lora_adapter",
    summary="Unload an adapter, in vLLM's words",
    response_model=None,
    responses=_SUCCESS,
)
async def unload_lora_adapter(body: UnloadLoraBody, actor: AdminDep, gateway: GatewayDep) -> Response:
    """As DELETE /admin/adapters/{name}: running requests finish first, within the drain limit."""
    await gateway.adapters.unload(body.lora_name, actor=actor)
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")
