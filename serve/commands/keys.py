"""`hotswap keys`: API keys, through a running gateway or in the registry itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Column, Table

from adapters.registry.keys import KeyTable
from adapters.registry.registry import Registry
from serve.access.api_key import make_key
from serve.commands.gateway import KEY_VARIABLE, open_gateway
from serve.errors import InvalidRequestError
from serve.schemas.keys import MAX_EXPIRY_SECONDS, KeyBody, KeyView, key_view
from serve.settings import load_settings

keys_app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)

_SECONDS_PER_DAY = 86_400
_MAX_DAYS = MAX_EXPIRY_SECONDS // _SECONDS_PER_DAY

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="HOTSWAP_URL",
        help=f"Gateway to go through, with the key in {KEY_VARIABLE}. Left out: the registry itself.",
    ),
]
HomeOption = Annotated[Path | None, typer.Option(help="Folder of the registry's file, as of `serve`.")]
RegistryOption = Annotated[
    str | None,
    typer.Option(envvar="HOTSWAP_REGISTRY_URL", help="SQLAlchemy URL of the registry, as of `serve`."),
]


@keys_app.command("create")
def create(
    label: Annotated[str, typer.Option(help="For people: what the key is for.")],
    tenant: Annotated[
        str | None, typer.Option(help="Whose key it is; keys of one tenant share a fair share. [its own]")
    ] = None,
    adapters: Annotated[
        str, typer.Option(help="Names and patterns that may be used, as in `risk*,base`; `all`, or `none`.")
    ] = "all",
    admin: Annotated[bool, typer.Option("--admin", help="May use the admin API.")] = False,
    metrics: Annotated[bool, typer.Option("--metrics", help="May read /metrics.")] = False,
    requests_per_minute: Annotated[int | None, typer.Option(help="At most so many.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(help="Prompts and answers together.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Requests at once.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens.")] = None,
    weight: Annotated[float, typer.Option(help="Share of the engine, relative to other tenants.")] = 1.0,
    expires_in_days: Annotated[float | None, typer.Option(help="Left out: until it is revoked.")] = None,
    url: UrlOption = None,
    home: HomeOption = None,
    registry_url: RegistryOption = None,
) -> None:
    """Make a key and print it, this once.

    Example: hotswap keys create --label "web shop" --adapters "risk*" --requests-per-minute 600
    """
    body = _body(
        label=label,
        tenant=tenant,
        adapters=_patterns(adapters),
        admin=admin,
        metrics=metrics,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        concurrency=concurrency,
        max_tokens=max_tokens,
        weight=weight,
        expires_in_seconds=_expiry_seconds(expires_in_days),
    )
    if url is not None:
        with open_gateway(url) as client:
            answer = client.create_key(body.model_dump(exclude_none=True))
        key, view = str(answer.pop("key")), KeyView.model_validate(answer)
    else:
        fresh = make_key()
        with _table(home, registry_url) as table:
            view = key_view(table.add(body.new_key(fresh), actor="cli"))
        key = fresh.text
    sys.stdout.write(key + "\n")
    sys.stderr.write(f"key {view.id} ({view.label}) of tenant {view.tenant}; it is not shown again\n")


@keys_app.command("list")
def list_keys(url: UrlOption = None, home: HomeOption = None, registry_url: RegistryOption = None) -> None:
    """Show all keys and what they may do; never a key itself.

    Example: hotswap keys list
    """
    if url is not None:
        with open_gateway(url) as client:
            views = [KeyView.model_validate(fields) for fields in client.list_keys()["keys"]]
    else:
        with _table(home, registry_url) as table:
            views = [key_view(record) for record in table.list_all()]
    # Narrow or not, an id can be copied from it, and nothing is cut off.
    others = ("label", "tenant", "state", "scope", "limits", "weight", "last used")
    shown = Table(Column("id", no_wrap=True), *(Column(title, overflow="fold") for title in others))
    for view in views:
        used = f"{view.last_used_at:%Y-%m-%d %H:%M}" if view.last_used_at is not None else ""
        shown.add_row(
            view.id,
            view.label,
            view.tenant,
            view.state,
            _scope(view),
            _limits(view),
            f"{view.weight:g}",
            used,
        )
    Console().print(shown)


@keys_app.command("revoke")
def revoke(
    key_id: Annotated[
        str, typer.Argument(help="Id of the key: what stands between `hsk_` and the next `_`.")
    ],
    url: UrlOption = None,
    home: HomeOption = None,
    registry_url: RegistryOption = None,
) -> None:
    """Take a key back for good. Running gateways refuse it within seconds.

    Example: hotswap keys revoke 4f1c09ab8d2e7701
    """
    key_id = key_id.split("_")[1] if key_id.startswith("hsk_") else key_id
    if url is not None:
        with open_gateway(url) as client:
            view = KeyView.model_validate(client.revoke_key(key_id))
    else:
        with _table(home, registry_url) as table:
            view = key_view(table.revoke(key_id, actor="cli"))
    sys.stdout.write(f"revoked {view.id} ({view.label})\n")


@contextmanager
def _table(home: Path | None, registry_url: str | None) -> Iterator[KeyTable]:
    settings = load_settings(home=home, registry_url=registry_url)
    with Registry(settings.registry, timeout_seconds=settings.registry_timeout_seconds) as registry:
        yield KeyTable(registry)


def _body(**fields: Any) -> KeyBody:
    """The request, as the gateway takes it. Raises InvalidRequestError."""
    try:
        return KeyBody(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise InvalidRequestError(f"--{name.replace('_', '-')}: {first['msg']}", param=name) from None


def _expiry_seconds(days: float | None) -> int | None:
    if days is None:
        return None
    if not 0 < days <= _MAX_DAYS:
        raise InvalidRequestError(
            f"--expires-in-days is {days:g}; give more than 0 and at most {_MAX_DAYS}",
            param="expires_in_days",
        )
    return max(1, round(days * _SECONDS_PER_DAY))


def _patterns(text: str) -> list[str] | None:
    if text == "all":
        return None
    return [] if text == "none" else [part.strip() for part in text.split(",") if part.strip()]


def _scope(view: KeyView) -> str:
    adapters = "all" if view.adapters is None else ", ".join(view.adapters) or "none"
    return " + ".join(["admin"] * view.admin + ["metrics"] * view.metrics + [adapters])


def _limits(view: KeyView) -> str:
    limits = (
        (view.requests_per_minute, "requests/min"),
        (view.tokens_per_minute, "tokens/min"),
        (view.concurrency, "at once"),
        (view.max_tokens, "tokens/answer"),
    )
    return ", ".join(f"{limit} {unit}" for limit, unit in limits if limit is not None)
