"""`hotswap adapters operations`, `events` and `audit`: what is going on in a running gateway, and what was done."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
import typer

from serve.commands.gateway import DEFAULT_URL, UrlOption, open_gateway, say, tell

NameOption = Annotated[str | None, typer.Option(help="Of this adapter alone.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


def list_operations(
    operation: Annotated[str | None, typer.Argument(help="Id of one; it is waited for and shown.")] = None,
    name: NameOption = None,
    limit: Annotated[int, typer.Option(help="How many at most.")] = 20,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Show what verbs that take long are doing, and what came of them.

    Example: hotswap adapters operations --name risk
    """
    with open_gateway(url) as client:
        if operation is not None:
            _tell_operation(client.read(f"/admin/operations/{operation}", wait=600))
            return
        operations = client.read("/admin/operations", name=name, limit=limit)["operations"]
    for one in operations:
        failed = f": {one['error']['code']}" if one["error"] else ""
        phases = ", ".join(f"{phase['phase']} {phase['seconds']:.3f}" for phase in one["phases"])
        tell(f"{_line(one)}{failed} ({phases})")


def _line(one: dict[str, Any]) -> str:
    who = f"{one['action']} {one['name'] or ''}".rstrip()
    return f"{one['id']} {who} by {one['actor']}: {one['state']} in {one['seconds']:.3f} s"


def _tell_operation(one: dict[str, Any]) -> None:
    tell(_line(one))
    for phase in one["phases"]:
        tell(f"  {phase['phase']}: {phase['seconds']:.3f} s")
    if one["error"]:
        tell(f"  {one['error']['code']}: {one['error']['message']}")
        raise typer.Exit(1)


def follow_events(
    name: NameOption = None,
    after: Annotated[int | None, typer.Option(help="Begin behind this event. Left out: from now on.")] = None,
    seconds: Annotated[float | None, typer.Option(help="End after so long; 0: what there is.")] = None,
    as_json: JsonOption = False,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Follow what happens in a running gateway, until Ctrl-C.

    Example: hotswap adapters events --name risk
    """
    with open_gateway(url) as client:
        for event in client.events(name=name, after=after, seconds=seconds):
            _tell_event(event, as_json)


def list_audit(
    name: NameOption = None,
    by: Annotated[str | None, typer.Option(help="Of this actor alone, e.g. admin or key:4f1c09ab.")] = None,
    action: Annotated[str | None, typer.Option(help="This action alone, e.g. load.")] = None,
    states: Annotated[bool, typer.Option("--states", help="With the steps of versions.")] = False,
    limit: Annotated[int, typer.Option(help="How many at most; the newest.")] = 100,
    before: Annotated[int | None, typer.Option(help="Older than this event.")] = None,
    as_json: JsonOption = False,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Show who did what to which version, and how it ended; the newest last.

    Example: hotswap adapters audit --name risk --limit 20
    """
    asked = {"name": name, "by": by, "action": action, "before": before, "limit": limit}
    with open_gateway(url) as client:
        page = client.read("/admin/audit", **asked, states="true" if states else None)
    for event in reversed(page["events"]):
        _tell_event(event, as_json)
    if page["next_before"] is not None:
        say(f"older ones: --before {page['next_before']}")


def _tell_event(event: dict[str, Any], as_json: bool) -> None:
    if as_json:
        tell(orjson.dumps(event).decode())
        return
    version = f"{event['name']}@{event['digest'][:8]}" if event["digest"] else event["name"] or ""
    detail = " ".join(f"{field}={value}" for field, value in event["detail"].items())
    at = event["at"][:19].replace("T", " ")
    tell(
        " ".join(
            f"{event['id']} {at} {event['actor']} {event['action']} {version} {event['outcome']} {detail}".split()
        )
    )
