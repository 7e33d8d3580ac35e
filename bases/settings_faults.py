"""What pydantic found wrong with settings, as lines for the person who gave them."""

from __future__ import annotations

from pydantic import ValidationError


def settings_faults(error: ValidationError, *, as_flags: bool, whole: str = "settings") -> str:
    """One indented line per fault: the setting, by its name or as the flag that the user types, and what is wrong.

    `whole` stands where a fault belongs to no single setting; empty for nothing. Values are not repeated.
    """
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        where = ".".join(map(str, problem["loc"]))
        if where and as_flags:
            where = "--" + where.replace("_", "-")
        where = where or whole
        reason = problem["msg"].removeprefix("Value error, ")
        lines.append(f"  {where}: {reason}" if where else f"  {reason}")
    return "\n".join(lines)
