"""Defaults that a table gives beside a flag are those of the settings classes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.docs.command_line import SETTINGS
from tests.docs.page import Page, pages

_HEADER = re.compile(r"^\|(?P<cells>.*\| default \|.*)$", re.MULTILINE)


def rows(page: Page) -> list[tuple[list[str], list[str]]]:
    """(flags, defaults) of each row of a table that has a column of flags and one of defaults."""
    found = []
    for header in _HEADER.finditer(page.text):
        names = cells(header.group(0))
        place = names.index("default")
        for line in page.text[header.end() :].strip("\n").splitlines()[1:]:
            if not line.startswith("|"):
                break
            row = cells(line)
            flags = re.findall(r"`--([a-z-]+)`", row[place - 1]) or re.findall(r"`--([a-z-]+)`", row[0])
            if flags:
                found.append((flags, [part.strip("` ") for part in row[place].split(", ")]))
    return found


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def defaults_of(flag: str) -> list[Any]:
    name = flag.replace("-", "_")
    return [kind.model_fields[name].default for kind in SETTINGS if name in kind.model_fields]


def is_same(shown: str, default: Any) -> bool:
    if default is None or default == ():
        return True  # what it is without a value is said in words
    if isinstance(default, bool):
        return shown == ("on" if default else "off")
    try:
        return float(shown.replace(",", "")) == float(default)
    except (TypeError, ValueError):
        return shown == str(default)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_default_is_the_one_of_the_settings(page: Page) -> None:
    for flags, shown in rows(page):
        if len(shown) != len(flags):
            continue
        for flag, text in zip(flags, shown, strict=True):
            known = defaults_of(flag)
            assert not known or any(is_same(text, default) for default in known), (
                f"{page.name}: --{flag} {text}"
            )


def test_tables_of_defaults_were_found() -> None:
    assert sum(len(rows(page)) for page in pages()) > 80
