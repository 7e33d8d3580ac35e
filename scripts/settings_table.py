"""Writes docs/settings.md from the settings class: `python -m scripts.settings_table`."""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from serve.settings import ServeSettings

PAGE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"

HEAD = """# Settings of `hotswap serve`

Made from `serve/settings.py` by `python -m scripts.settings_table`.

A flag beats an environment variable, which beats the TOML file (`--config FILE` or `HOTSWAP_CONFIG`), which
beats the default. In the file the names are those of the first column with `_` for `-`:

```toml
base = "default"
max_loras = 16
engine_arg = ["tensor-parallel-size=2"]
```

The admin key has no flag: a flag would stand in every process list.

| flag | variable | kind | default | meaning |
| --- | --- | --- | --- | --- |
"""


def settings_page() -> str:
    """The whole page."""
    return HEAD + "".join(_row(name) for name in ServeSettings.model_fields)


def _row(name: str) -> str:
    info = ServeSettings.model_fields[name]
    flag = "" if name == "admin_key" else f"`--{name.replace('_', '-')}`"
    default = "" if info.default in (None, ()) else f"`{_shown(info.default)}`"
    text = (info.description or "").replace("|", "\\|")
    return f"| {flag} | `HOTSWAP_{name.upper()}` | {_kind(info.annotation)} | {default} | {text} |\n"


def _kind(annotation: Any) -> str:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    if typing.get_origin(annotation) is typing.Literal:
        return " \\| ".join(str(choice) for choice in typing.get_args(annotation))
    if typing.get_origin(annotation) is tuple:
        return "text, repeatable"
    names = {str: "text", int: "number", float: "number", bool: "switch", Path: "path", SecretStr: "secret"}
    return names[annotation]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


if __name__ == "__main__":
    PAGE.write_text(settings_page(), encoding="utf-8")
