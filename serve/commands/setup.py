"""`hotswap setup`: what `hotswap serve` would else do, or do without, when it starts."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from serve.commands.gateway import say
from serve.settings import load_settings


def setup(
    base: Annotated[
        str, typer.Option(help="Base to make ready: `default`, a folder or a hub id.")
    ] = "default",
) -> None:
    """Make a base model ready, and on a CPU the kernels, so that `hotswap serve` starts without waiting for them.

    Without a C++ compiler it says so and goes on: PyTorch then computes quantised bases, slower.

    Example: hotswap setup
    """
    from serve.engine.cpu.lowbit.build import KernelBuildError, build_library
    from serve.engine.vllm.machine import read_machine
    from serve.engine_setup import checked_base

    home = load_settings().home
    target = checked_base(base, home, progress=say)
    if read_machine().device == "cpu":
        try:
            build_library(home, progress=say)
        except KernelBuildError as error:
            say(str(error))
    sys.stdout.write(f"{target.name} is ready (fingerprint {target.fingerprint[:16]})\n")
