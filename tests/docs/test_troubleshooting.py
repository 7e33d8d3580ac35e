"""docs/troubleshooting.md has a row for each code that a reader can meet, and for no other."""

from __future__ import annotations

import re

from serve.server import EXIT_ENGINE_DIED, EXIT_START_FAILED
from tests.docs.error_codes import check_codes, http_codes, probe_causes
from tests.docs.page import PROJECT, Page
from tests.docs.sources import tree
from tests.serve.http.test_errors import all_errors

PAGE = Page(PROJECT / "docs" / "troubleshooting.md")


def section(title: str) -> str:
    """What stands under a heading, up to the next one of its kind."""
    return PAGE.text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def first_cells(title: str) -> list[str]:
    """The codes in the first cell of each row."""
    rows = re.findall(r"^\| (`[^|]*`) \|", section(title), re.MULTILINE)
    return [code for row in rows for code in re.findall(r"`([a-z_]+)`", row)]


def test_every_code_of_the_gateway_has_one_row_with_its_status() -> None:
    rows = re.findall(r"^\| (\d{3}) \| `([a-z_]+)` \| (.+) \| (.+) \|$", section("Codes"), re.MULTILINE)
    assert sorted(code for _, code, _, _ in rows) == sorted(http_codes())
    for status, code, _, _ in rows:
        assert int(status) in http_codes()[code], f"{code} stands at {status}"
    assert [int(status) for status, *_ in rows] == sorted(int(status) for status, *_ in rows)


def test_every_finding_of_the_check_is_explained() -> None:
    title = "What the check finds"
    warnings = re.findall(r"`([a-z_]+)`", section(title).split("Warnings let it pass")[1])
    assert sorted([*first_cells(title), *warnings]) == sorted(check_codes())


def test_every_cause_of_a_probe_is_explained() -> None:
    assert sorted(first_cells("Why a probe refuses")) == sorted(probe_causes())


def test_every_exit_code_of_a_start_is_explained() -> None:
    codes = {int(code) for code in re.findall(r"^\| (\d) \|", section("It does not start"), re.MULTILINE)}
    assert codes == {1, 2, EXIT_START_FAILED, EXIT_ENGINE_DIED}


def test_every_code_that_is_explained_can_come() -> None:
    """Each error that is nobody's parent is made somewhere."""
    _, code = tree()
    parents = {parent for kind in all_errors().values() for parent in kind.__mro__[1:]}
    for name, kind in all_errors().items():
        if kind not in parents and kind.code in http_codes():
            made = re.findall(rf"(?<!class )\b{name}\b\(", code)
            assert made, f"{name} is never raised: no client can get {kind.code}"
