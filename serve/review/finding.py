"""Finds the reviewers that the operator names: the shipped policy, entry points, functions of modules."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serve.errors import SettingsError
from serve.review.callable_reviewer import STAGES, CallableReviewer
from serve.review.pattern_reviewer import PatternReviewer
from serve.review.rules import read_rules
from serve.review.text_reviewer import TextReviewer
from serve.review.threads import ReviewThreads

ENTRY_POINTS = "hotswap.reviewers"
PATTERNS = "patterns"


def find_reviewers(
    names: Sequence[str], *, rules: Path | None, threads: ReviewThreads, seconds: float
) -> list[TextReviewer]:
    """The reviewers in their order. Code is loaded for names in `names` alone. Raises SettingsError."""
    if len(set(names)) != len(names):
        raise SettingsError("--review names a reviewer twice")
    if rules is not None and PATTERNS not in names:
        raise SettingsError(f"--review-rules is there and nobody reads it: add {PATTERNS!r} to --review")
    found: list[TextReviewer] = []
    for name in names:
        if name == PATTERNS:
            if rules is None:
                raise SettingsError(
                    f"the reviewer {PATTERNS!r} needs --review-rules FILE; docs/review.md has one"
                )
            found.append(PatternReviewer(name, read_rules(rules), threads=threads, seconds=seconds))
        else:
            function = _of_module(name) if ":" in name else _of_entry_point(name)
            found.append(CallableReviewer(name, _checked(name, function), threads=threads))
    return found


def _of_module(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise SettingsError(
            f"the reviewer {name!r} cannot be loaded: {type(error).__name__}: {error}; it is named as "
            "package.module:function, and the package has to be importable here"
        ) from error
    return found


def _of_entry_point(name: str) -> Any:
    points = importlib.metadata.entry_points(group=ENTRY_POINTS)
    if name not in points.names:
        known = ", ".join(sorted({PATTERNS, *points.names}))
        raise SettingsError(
            f"no reviewer is called {name!r}; there are: {known}; or name a function as package.module:function"
        )
    try:
        return points[name].load()
    except Exception as error:
        raise SettingsError(
            f"the reviewer {name!r} ({points[name].value}) cannot be loaded: {type(error).__name__}: {error}"
        ) from error


def _checked(name: str, function: Any) -> Any:
    if isinstance(function, type) or not callable(function):
        raise SettingsError(
            f"the reviewer {name!r} is no function; name one, or an object that can be called"
        )
    stages = getattr(function, "stages", STAGES)
    if isinstance(stages, str) or not set(stages) or not set(stages) <= set(STAGES):
        raise SettingsError(f"the reviewer {name!r} has stages={stages!r}; those are {', '.join(STAGES)}")
    return function
