"""Reads a command line as the program would, up to the point where it would begin to work."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import typer
import typer.main
from pydantic_settings import BaseSettings
from typer.core import TyperGroup
from typer.exceptions import TyperException

import hotswap
from adapters.data.settings import DataSettings
from adapters.evaluation.settings import EvaluationSettings
from adapters.export.settings import ExportSettings
from adapters.merge.settings import MergeSettings
from adapters.training.settings import TrainSettings
from bases.errors import HotswapError
from benchmarks.load.bench import check_options
from benchmarks.load.comparison import parse_limit
from benchmarks.load.overload import parse_factors
from benchmarks.load.own_gateway import parse_ranks
from benchmarks.load.peers.peer import parse_peers
from benchmarks.load.quant_bases import parse_bases
from benchmarks.load.rates import parse_rates
from benchmarks.load.settings import BenchSettings
from quantize.recovery.settings import RecoverySettings
from quantize.schemes.registry import find_scheme
from quantize.settings import QuantizeSettings
from serve.settings import ServeSettings

SETTINGS: tuple[type[BaseSettings], ...] = (
    ServeSettings,
    DataSettings,
    TrainSettings,
    EvaluationSettings,
    ExportSettings,
    MergeSettings,
    QuantizeSettings,
    RecoverySettings,
    BenchSettings,
)
_VARIABLE_OF_OPTION = re.compile(r"\[(HOTSWAP_[A-Z_0-9]+)\]$")
# What documents write where a reader puts something of their own.
_PLACEHOLDER = re.compile(r"[A-Z][A-Z0-9_-]*|\.\.\.")
# Values that have a syntax of their own, by the name of their option.
_PARSERS: dict[str, Callable[[Any], object]] = {
    "peer": parse_peers,
    "rates": parse_rates,
    "times_capacity": parse_factors,
    "bases": parse_bases,
    "ranks": parse_ranks,
    "fail_on": lambda texts: [parse_limit(text) for text in texts],
}


class WrongCommandError(Exception):
    """A command line that the program would refuse."""


def variables() -> dict[str, tuple[type[BaseSettings], str]]:
    """Every environment variable of a settings class -> (class, field)."""
    return {
        f"{kind.model_config['env_prefix']}{field.upper()}": (kind, field)
        for kind in SETTINGS
        for field in kind.model_fields
    }


@cache
def root() -> TyperGroup:
    """The command line of `hotswap`."""
    command = typer.main.get_command(hotswap.app)
    if not isinstance(command, TyperGroup):
        raise TypeError(f"{command!r} has no subcommands")
    return command


def leaves(
    group: TyperGroup | None = None, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, command) of every subcommand."""
    for name, command in (group or root()).commands.items():
        if isinstance(command, TyperGroup):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


def read_hotswap(words: tuple[str, ...], *, whole: bool = True) -> None:
    """Read `hotswap ...`: subcommand, flags, arguments, and each value as its settings class takes it.

    With `whole` False arguments may be missing, as in a sentence. Raises WrongCommandError.
    """
    command: Any = root()
    rest = list(words[1:])
    while isinstance(command, TyperGroup):
        if not rest:
            if whole:
                raise WrongCommandError(f"{' '.join(words)!r} names no command")
            return
        name, *rest = rest
        if name not in command.commands:
            raise WrongCommandError(f"{name!r} is none of the commands {', '.join(command.commands)}")
        command = command.commands[name]
    rest, flags = _parted(rest)
    read_command(command, rest, whole=whole)
    if flags:
        read_command(root().commands["serve"], flags, whole=True)


def read_command(command: Any, words: list[str], *, whole: bool) -> None:
    """Read the arguments of one command. Raises WrongCommandError."""
    if "--help" in words:
        return
    try:
        context = command.make_context(command.name or "command", list(words))
    except TyperException as error:
        if not whole and type(error).__name__ == "MissingParameter":
            return
        raise WrongCommandError(error.format_message()) from error
    _read_values(command, context.params)


def read_module(module: str, words: tuple[str, ...], *, whole: bool = True) -> None:
    """Read `python -m module ...`: it is there, and takes these flags if it says what it takes.

    Raises WrongCommandError.
    """
    spec = importlib.util.find_spec(module)
    if spec is None:
        raise WrongCommandError(f"there is no module {module}")
    if spec.submodule_search_locations is not None:
        module = f"{module}.__main__"
        if importlib.util.find_spec(module) is None:
            raise WrongCommandError(f"{module} is not there")
    loaded = importlib.import_module(module)
    app = getattr(loaded, "app", None)
    if isinstance(app, typer.Typer):
        read_command(typer.main.get_command(app), list(words), whole=whole)
        return
    source = Path(loaded.__file__ or "").read_text(encoding="utf-8")
    for word in words:
        flag = word.partition("=")[0]
        if flag.startswith("--") and f'"{flag}"' not in source:
            raise WrongCommandError(f"{module} has no {flag}")


def flags() -> set[str]:
    """Every flag of every subcommand."""
    return {
        flag
        for _, command in leaves()
        for parameter in command.params
        for flag in (*parameter.opts, *parameter.secondary_opts)
        if flag.startswith("--")
    } | {"--help"}


def _parted(words: list[str]) -> tuple[list[str], list[str]]:
    """(before, after) the first `--`."""
    place = words.index("--") if "--" in words else len(words)
    return words[:place], words[place + 1 :]


def _read_values(command: Any, given: dict[str, Any]) -> None:
    """Give the values to the settings classes that the options were made from."""
    known = variables()
    by_class: dict[type[BaseSettings], dict[str, Any]] = defaultdict(dict)
    for parameter in command.params:
        value = given.get(parameter.name or "")
        match = _VARIABLE_OF_OPTION.search(getattr(parameter, "help", None) or "")
        if value in (None, [], ()) or match is None or match.group(1) not in known:
            continue
        if isinstance(value, str) and _PLACEHOLDER.fullmatch(value):
            continue
        kind, field = known[match.group(1)]
        by_class[kind][field] = tuple(value) if isinstance(value, list) else value
    try:
        for name, parse in _PARSERS.items():
            if given.get(name) not in (None, [], ()):
                parse(given[name])
        for kind, values in by_class.items():
            settings = kind(**values)
            if isinstance(settings, BenchSettings):
                check_options(settings)
            elif isinstance(settings, QuantizeSettings) and settings.scheme is not None:
                find_scheme(settings.scheme)
    except (ValueError, HotswapError) as error:
        raise WrongCommandError(str(error)) from error
