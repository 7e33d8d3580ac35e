"""`hotswap adapters`: the verbs on adapters of a running gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from serve.client import adapter_path, describe_load
from serve.commands.gateway import (
    DEFAULT_URL,
    KEY_VARIABLE,
    NameArgument,
    UrlOption,
    open_gateway,
    say,
    tell,
)
from serve.commands.happenings import follow_events, list_audit, list_operations
from serve.commands.traffic import share_traffic

adapters_app = typer.Typer(
    help="Check, load, promote, share and unload adapters, and what was done with them.", no_args_is_help=True
)

VersionArgument = Annotated[str, typer.Argument(help="Version: 3f2a91c0 or risk@3f2a91c0.")]
ExpectedOption = Annotated[
    str | None,
    typer.Option(help="Version that the name has to mean now, or `none`; otherwise nothing is done."),
]
PromoteOption = Annotated[
    bool, typer.Option("--promote/--no-promote", help="Let the name mean the version, or load it beside.")
]
DrainOption = Annotated[float | None, typer.Option(help="Wait so long for running requests, in seconds.")]


@adapters_app.command("list")
def list_adapters(url: UrlOption = DEFAULT_URL) -> None:
    """Show the adapters of a running gateway.

    Example: hotswap adapters list
    """
    with open_gateway(url) as client:
        answer = client.list_adapters()
    # A version is what the other verbs are given: it is never cut off, however narrow the screen.
    table = Table(
        Column("name", overflow="fold"),
        Column("version", no_wrap=True),
        Column("state", overflow="fold"),
        *("rank", "MiB", "in flight"),
        Column("source", overflow="fold"),
    )
    for adapter in answer["adapters"]:
        for version in adapter["versions"]:
            table.add_row(
                adapter["name"],
                version["version"] + _marks(version),
                version["state"] + (f": {version['reason']}" if version["reason"] else ""),
                str(version["rank"]),
                f"{version['bytes'] / 1024**2:.1f}",
                str(version["in_flight"]),
                version["source"],
            )
    if answer["adapters"]:
        Console().print(table)
    else:
        say("no adapter is known here: `hotswap adapters push NAME FOLDER` brings one")
    for adapter in answer["adapters"]:
        if not adapter["settled"]:
            say(f"{adapter['name']} should mean {adapter['desired']}: {adapter['reason'] or 'on its way'}")
    say(f"base {answer['base']}; {answer['max_loras']} slots, {answer['max_cpu_loras']} kept in memory")


def _marks(version: dict[str, Any]) -> str:
    """What is particular about a version."""
    marks = ["live"] if version["live"] else []
    marks += ["pinned"] if version["pinned"] else []
    marks += [f"canary {version['share']:.3g}"] if version["share"] else []
    marks += [f"shadow {version['shadow']:.3g}"] if version["shadow"] else []
    return f"\n({', '.join(marks)})" if marks else ""


@adapters_app.command("load")
def load_adapter(
    name: NameArgument,
    source: Annotated[
        str, typer.Argument(help="Folder inside the gateway's adapter root, or a URL that it may read.")
    ],
    promote: PromoteOption = True,
    expected_live: ExpectedOption = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Load an adapter into a running gateway, or replace it with a new version.

    Example: hotswap adapters load risk risk-v2
    """
    with open_gateway(url) as client:
        answer = client.load_adapter(
            name, source, promote=None if promote else False, expected_live=expected_live
        )
    tell(describe_load(answer))
    for warning in answer["warnings"]:
        say(f"warning {warning['code']}: {warning['message']}")


@adapters_app.command("push")
def push_adapter(
    name: NameArgument,
    folder: Annotated[Path, typer.Argument(help="Folder of the adapter on this machine.")],
    promote: PromoteOption = True,
    expected_live: ExpectedOption = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Send an adapter to a running gateway, on this machine or another, and load it.

    Example: hotswap adapters push risk ./risk --url http://gpu-server:8000
    """
    import os

    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    from serve.push import push

    columns = (BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    console = Console(stderr=True)
    # Where there is nothing to draw on, rich would leave an empty line.
    with Progress(*columns, console=console, transient=True, disable=not console.is_interactive) as bar:
        task = bar.add_task(name, total=None)
        said = push(
            folder,
            name,
            url=url,
            admin_key=os.environ.get(KEY_VARIABLE),
            progress=lambda sent, total: bar.update(task, completed=sent, total=total),
            promote=None if promote else False,
            expected_live=expected_live,
        )
    tell(said)


@adapters_app.command("validate")
def validate_adapter(
    source: Annotated[
        str, typer.Argument(help="Folder inside the gateway's adapter root, or a URL that it may read.")
    ],
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Have a running gateway check an adapter, without loading it. Exit code 1 when it found a problem.

    Example: hotswap adapters validate risk-v2
    """
    with open_gateway(url) as client:
        report = client.verb("POST", "/admin/adapters/validate", json={"source": source})
    for kind, findings in (("problem", report["problems"]), ("warning", report["warnings"])):
        for finding in findings:
            tell(f"{kind} {finding['code']}: {finding['message']}")
    digest = report["facts"]["digest"]
    tell(f"{source} can be loaded ({digest[:8]})" if report["ok"] else f"{source} cannot be loaded")
    raise typer.Exit(0 if report["ok"] else 1)


@adapters_app.command("promote")
def promote_version(
    name: NameArgument,
    version: VersionArgument,
    expected_live: ExpectedOption = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Let a name mean another version, which is brought up and probed first.

    Example: hotswap adapters promote risk 3f2a91c0
    """
    body = {"version": version, **({} if expected_live is None else {"expected_live": expected_live})}
    with open_gateway(url) as client:
        _tell_move(name, client.verb("POST", adapter_path(name, "promote"), json=body))


@adapters_app.command("rollback")
def roll_back(name: NameArgument, url: UrlOption = DEFAULT_URL) -> None:
    """Let a name mean what it meant before.

    Example: hotswap adapters rollback risk
    """
    with open_gateway(url) as client:
        _tell_move(name, client.verb("POST", adapter_path(name, "rollback"), json={}))


def _tell_move(name: str, answer: dict[str, Any]) -> None:
    left = f", was {answer['left']}" if answer["left"] else ""
    tell(
        f"{name} means {answer['version']}{left}" if answer["moved"] else f"{name} meant that version already"
    )


@adapters_app.command("pin")
def pin_version(name: NameArgument, version: VersionArgument, url: UrlOption = DEFAULT_URL) -> None:
    """Keep a version loaded, and answering to NAME@VERSION, whatever the name means.

    Example: hotswap adapters pin risk 3f2a91c0
    """
    with open_gateway(url) as client:
        answer = client.verb("POST", _version_path(name, version, "pin"), json={})
    tell(f"{answer['version']} {'is' if answer['changed'] else 'was'} pinned")


@adapters_app.command("unpin")
def unpin_version(name: NameArgument, version: VersionArgument, url: UrlOption = DEFAULT_URL) -> None:
    """Take a pin back.

    Example: hotswap adapters unpin risk 3f2a91c0
    """
    with open_gateway(url) as client:
        answer = client.verb("DELETE", _version_path(name, version, "pin"))
    tell(f"{answer['version']} {'is not pinned any more' if answer['changed'] else 'was not pinned'}")


@adapters_app.command("prefetch")
def prefetch_version(name: NameArgument, version: VersionArgument, url: UrlOption = DEFAULT_URL) -> None:
    """Bring a version into memory, probed, so that promoting it takes no time.

    Example: hotswap adapters prefetch risk 3f2a91c0
    """
    with open_gateway(url) as client:
        answer = client.verb("POST", _version_path(name, version, "prefetch"), json={})
    tell(f"{answer['version']} is loaded")


@adapters_app.command("unload")
def unload_adapter(
    name: NameArgument,
    version: Annotated[
        str | None, typer.Option(help="This version alone, which stays in the store. Left out: all of them.")
    ] = None,
    drain_seconds: DrainOption = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Unload an adapter from a running gateway; running requests finish first.

    Example: hotswap adapters unload risk --drain-seconds 10
    """
    with open_gateway(url) as client:
        if version is None:
            answer = client.unload_adapter(name, drain_seconds=drain_seconds)
        else:
            params = {} if drain_seconds is None else {"drain_seconds": drain_seconds}
            answer = client.verb("DELETE", _version_path(name, version), params=params)
    tell(f"unloaded {', '.join(answer['unloaded']) or answer['name']}")


def _version_path(name: str, version: str, *more: str) -> str:
    return adapter_path(name, "versions", version.rpartition("@")[2], *more)


adapters_app.command("traffic")(share_traffic)
adapters_app.command("operations")(list_operations)
adapters_app.command("events")(follow_events)
adapters_app.command("audit")(list_audit)
