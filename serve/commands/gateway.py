"""What commands that speak to a running gateway have in common."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from serve.client import GatewayClient

DEFAULT_URL = "http://127.0.0.1:8000"
UrlOption = Annotated[str, typer.Option("--url", envvar="HOTSWAP_URL", help="Address of the gateway.")]
NameArgument = Annotated[str, typer.Argument(help="Public name, e.g. risk.")]
# The key comes from the environment alone: a flag would stand in every process list.
KEY_VARIABLE = "HOTSWAP_ADMIN_KEY"
API_KEY_VARIABLE = "HOTSWAP_API_KEY"  # of a key that may only ask


def open_gateway(url: str) -> GatewayClient:
    """A client with the admin key of the environment; use it in a `with` statement."""
    return GatewayClient(url, admin_key=os.environ.get(KEY_VARIABLE))


def say(text: str) -> None:
    """A line for the person at the terminal, apart from the output proper."""
    sys.stderr.write(text + "\n")


def tell(text: str) -> None:
    """A line of the output proper."""
    sys.stdout.write(text + "\n")
