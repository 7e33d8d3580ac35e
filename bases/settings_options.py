"""Command-line options made from a settings class, so that a setting is defined once."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings


def with_options(
    settings_class: type[BaseSettings], *, env_prefix: str, skip: frozenset[str] = frozenset()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: the function's `**given` become one Typer option per field of `settings_class`.

    Every option's own default is None ("not given"), so that the environment and the file keep their say; the
    help shows the real default and the variable's name.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        own = [
            parameter
            for parameter in inspect.signature(function, eval_str=True).parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        made = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=_annotation(name, info, f"{env_prefix}{name.upper()}"),
            )
            for name, info in settings_class.model_fields.items()
            if name not in skip
        ]
        keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        parameters = [*keyword_only, *made]

        def command(**given: Any) -> Any:
            return function(**given)

        command.__name__, command.__doc__ = function.__name__, function.__doc__
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate


def _annotation(name: str, info: FieldInfo, variable: str) -> Any:
    flag = "--" + name.replace("_", "-")
    kind, is_tuple = _option_type(info.annotation)
    flags = [f"{flag}/--no-{flag.removeprefix('--')}"] if kind is bool else [flag]
    default = "" if info.default in (None, ()) else f" Default: {_shown(info.default)}."
    text = f"{info.description or ''}{default} [{variable}]"
    option = typer.Option(*flags, help=text, show_default=False)
    if is_tuple:
        return Annotated[list[str] | None, option]
    return Annotated[kind | None, option]


def _option_type(annotation: Any) -> tuple[Any, bool]:
    """(type that Typer can parse, whether the option repeats)."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    origin = typing.get_origin(annotation)
    if origin is tuple:
        return str, True
    if origin is typing.Literal:
        return type(typing.get_args(annotation)[0]), False
    if annotation in (int, float, bool, str, Path):
        return annotation, False
    if annotation is SecretStr:
        return str, False
    raise TypeError(f"no command-line form for a setting of type {annotation!r}")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)
