"""`hotswap adapters traffic`: canaries and shadows of one adapter of a running gateway."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from serve.client import adapter_path
from serve.commands.gateway import DEFAULT_URL, NameArgument, UrlOption, open_gateway, tell

SharesOption = list[str] | None


def share_traffic(
    name: NameArgument,
    canary: Annotated[
        SharesOption, typer.Option(help="VERSION=SHARE, repeatable: answers that share of the requests.")
    ] = None,
    shadow: Annotated[
        SharesOption, typer.Option(help="VERSION=SHARE, repeatable: gets a copy of that share of them.")
    ] = None,
    sticky: Annotated[
        str | None, typer.Option(help="What keeps a caller on one version: none, session or key.")
    ] = None,
    guard: Annotated[
        bool, typer.Option("--guard/--no-guard", help="Take a canary back that fails or is slow.")
    ] = True,
    min_requests: Annotated[int | None, typer.Option(help="Requests before a canary is judged.")] = None,
    max_error_rate: Annotated[float | None, typer.Option(help="Share of answers that may fail.")] = None,
    max_ttft_ratio: Annotated[
        float | None, typer.Option(help="Time to the first token over the stable version's, at most.")
    ] = None,
    probe_seconds: Annotated[float | None, typer.Option(help="Seconds between probes of a canary.")] = None,
    window_seconds: Annotated[float | None, typer.Option(help="Answers that are judged, in seconds.")] = None,
    rollout: Annotated[
        str | None, typer.Option(help="Shares that a canary which does well gets in turn, as in 0.1,0.5.")
    ] = None,
    step_seconds: Annotated[float | None, typer.Option(help="Each of them lasts at least so long.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="The stable version answers alone again.")] = False,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Show how the requests of a name are shared between versions, or share them otherwise.

    Example: hotswap adapters traffic risk --canary 3f2a91c0=0.05 --max-error-rate 0.02
    """
    path = adapter_path(name, "traffic")
    asked = {
        "min_requests": min_requests,
        "max_error_rate": max_error_rate,
        "max_ttft_ratio": max_ttft_ratio,
        "probe_seconds": probe_seconds,
        "window_seconds": window_seconds,
    }
    limits = {field: value for field, value in asked.items() if value is not None}
    sharing = canary or shadow
    if clear and sharing:
        raise typer.BadParameter("--clear takes all shares back; give it alone")
    if not sharing and (sticky is not None or rollout is not None or limits):
        raise typer.BadParameter("this decides nothing without --canary or --shadow")
    if step_seconds is not None and rollout is None:
        raise typer.BadParameter("--step-seconds decides nothing without --rollout")
    if limits and not guard:
        raise typer.BadParameter("limits of the guard decide nothing with --no-guard")
    with open_gateway(url) as client:
        if clear:
            answer = client.verb("DELETE", path)
        elif sharing:
            body: dict[str, Any] = {"shares": _shares(canary), "shadow": _shares(shadow)}
            body |= {"sticky": sticky} if sticky is not None else {}
            body |= {"guard": limits} if guard and canary else {}
            body |= {"rollout": _rollout(rollout, step_seconds)} if rollout is not None else {}
            answer = client.verb("PUT", path, json=body)
        else:
            answer = client.read(path)
    _tell_plan(answer)


def _shares(given: SharesOption) -> dict[str, float]:
    """VERSION=SHARE as the API takes it. Raises typer.BadParameter."""
    shares = {}
    for text in given or ():
        version, equals, share = text.partition("=")
        try:
            shares[version.rpartition("@")[2]] = float(share)
        except ValueError:
            equals = ""
        if not equals:
            raise typer.BadParameter(f"{text!r} is not VERSION=SHARE, such as 3f2a91c0=0.05")
    return shares


def _rollout(steps: str, step_seconds: float | None) -> dict[str, Any]:
    """Raises typer.BadParameter."""
    try:
        shares = [float(share) for share in steps.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{steps!r} is no list of shares, such as 0.1,0.5") from None
    return {"steps": shares, **({} if step_seconds is None else {"step_seconds": step_seconds})}


def _tell_plan(answer: dict[str, Any]) -> None:
    name, plan = answer["name"], answer["traffic"]
    if plan is None:
        tell(f"{name}: {answer['stable']} answers everything")
        return
    rest = max(0.0, 1.0 - sum(plan["shares"].values()))
    tell(f"{name}: {answer['stable']} answers {rest:.3g} of the requests, sticky by {plan['sticky']}")
    for digest, share in plan["shares"].items():
        tell(f"  canary {name}@{digest[:8]}: {share:.3g}")
    for digest, share in plan["shadow"].items():
        tell(f"  shadow {name}@{digest[:8]}: {share:.3g}")
    if plan["guard"] is not None:
        limits = ", ".join(
            f"{field} {value:g}" for field, value in plan["guard"].items() if value is not None
        )
        tell(f"  taken back beyond: {limits}")
    if plan.get("rollout") is not None:
        steps = ", ".join(f"{share:.3g}" for share in plan["rollout"]["steps"])
        tell(f"  goes on to {steps}, then promoted; each step {plan['rollout']['step_seconds']:g} s at least")
