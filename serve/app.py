"""The FastAPI application around a gateway. Makes nothing at import; `create_app` may be called many times."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware

from serve.http.access_log import AccessLogMiddleware
from serve.http.body import BodyLimitMiddleware
from serve.http.errors import install_error_handlers
from serve.http.host import HostMiddleware
from serve.http.request_id import RequestIdMiddleware
from serve.routes import (
    admin,
    events,
    generate,
    health,
    keys,
    lorax,
    openai,
    operations,
    traffic,
    upload,
    versions,
    vllm_lora,
)

VERSION = "0.1.0"


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What the application accepts from the wire."""

    max_body_bytes: int
    receive_seconds: float
    allowed_hosts: Collection[str]


class _KeyedApp(FastAPI):
    """Documents only the kinds of keys that this server asks for."""

    asked_keys: frozenset[str] = frozenset()

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            schemes = document["components"].pop("securitySchemes", {})
            if asked := {name: scheme for name, scheme in schemes.items() if name in self.asked_keys}:
                document["components"]["securitySchemes"] = asked
            for operations in document["paths"].values():
                for operation in operations.values():
                    needs = operation.pop("security", ())
                    if kept := [need for need in needs if self.asked_keys.issuperset(need)]:
                        operation["security"] = kept
        return super().openapi()


def create_app(
    life: Callable[[FastAPI], AbstractAsyncContextManager[None]],
    limits: HttpLimits,
    *,
    admin_key: bool = True,
    api_key: bool = False,
) -> FastAPI:
    """The application. `life` puts a Gateway on `app.state.gateway` while it is entered.

    `admin_key` and `api_key` say whether the document asks for them; the gateway's own settings decide.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with life(app):
            yield

    app = _KeyedApp(
        title="Hotswap",
        version=VERSION,
        summary="One base model, many adapters, always on.",
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
        middleware=[
            Middleware(RequestIdMiddleware),
            Middleware(AccessLogMiddleware),
            Middleware(HostMiddleware, allowed=limits.allowed_hosts),
            Middleware(
                BodyLimitMiddleware,
                max_bytes=limits.max_body_bytes,
                receive_seconds=limits.receive_seconds,
                streamed=upload.is_upload,
            ),
        ],
    )
    asked = {"admin_key": admin_key, "api_key": api_key}
    app.asked_keys = frozenset(name for name, is_asked in asked.items() if is_asked)
    app.state.gateway = None
    verbs = (admin, upload, versions, traffic, keys, operations, events)
    routers = (generate, openai, lorax, vllm_lora, *verbs, health)
    for routes in routers:
        # As they are, and not `include_router`: that makes each of them, and its schemas, anew.
        app.router.routes.extend(routes.router.routes)
    install_error_handlers(app)
    return app
