"""JSON read from files that somebody else wrote: bounded, no duplicate keys, no NaN, no surprises."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn

from adapters.errors import AdapterFileError

_MAX_NUMBER_CHARACTERS = 64


def parse_json_object(raw: bytes, *, what: str, integers_only: bool = False) -> dict[str, Any]:
    """Parse `raw` as one JSON object; raise AdapterFileError naming `what` for anything else.

    Refused although Python's parser takes them: duplicate keys, NaN and infinities (also spelled 1e999),
    numbers of absurd length, lone surrogates. With `integers_only` every number must be a plain
    non-negative integer.
    """

    def refuse(message: str) -> NoReturn:
        raise AdapterFileError(f"{what} {message}")

    try:
        text = raw.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_pairs_hook(refuse),
            parse_constant=lambda constant: refuse(f"holds {constant}, which is not JSON."),
            parse_float=_float_hook(refuse, integers_only),
            parse_int=_int_hook(refuse, integers_only),
        )
    except UnicodeDecodeError as error:
        raise AdapterFileError(f"{what} is not UTF-8 text (byte {error.start}).") from error
    except json.JSONDecodeError as error:
        raise AdapterFileError(
            f"{what} is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from error
    except RecursionError as error:
        raise AdapterFileError(f"{what} is nested too deeply.") from error
    if not isinstance(value, dict):
        refuse(f"must hold a JSON object, not {type(value).__name__}.")
    if "\\u" in text:  # only an escape can smuggle in a lone surrogate
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise AdapterFileError(f"{what} holds a lone surrogate, which is not text.") from error
    return value


def _pairs_hook(refuse: Callable[[str], NoReturn]) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(pairs)
        if len(built) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            refuse(f"holds the key {twice[:80]!a} twice.")
        return built

    return build


def _int_hook(refuse: Callable[[str], NoReturn], integers_only: bool) -> Callable[[str], int]:
    def build(text: str) -> int:
        if len(text) > _MAX_NUMBER_CHARACTERS:
            refuse(f"holds a number of {len(text)} characters.")
        if integers_only and text.startswith("-"):
            refuse(f"holds the number {text} where only non-negative integers may stand.")
        return int(text)

    return build


def _float_hook(refuse: Callable[[str], NoReturn], integers_only: bool) -> Callable[[str], float]:
    def build(text: str) -> float:
        if len(text) > _MAX_NUMBER_CHARACTERS:
            refuse(f"holds a number of {len(text)} characters.")
        if integers_only:
            refuse(f"holds the number {text} where only non-negative integers may stand.")
        value = float(text)
        if value in (float("inf"), float("-inf")):
            refuse(f"holds the number {text}, which is too large.")
        return value

    return build
