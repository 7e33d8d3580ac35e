"""The CPU build of torch comes from where pip finds it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.torch_build import choose_torch, listed_versions

PRINTED = "torch (2.14.0)\nAvailable versions: 2.14.0, {}2.13.0, 2.12.1\n  INSTALLED: 2.12.1\n"


class FakePip:
    def __init__(self, printed: str) -> None:
        self.printed = printed
        self.asked: list[list[str]] = []

    def __call__(self, arguments: list[str]) -> str:
        self.asked.append(arguments)
        return self.printed


def test_torch_needs_no_index_where_pip_finds_the_cpu_build() -> None:
    pip = FakePip(PRINTED.format("2.13.0+cpu, "))
    choice = choose_torch("2.13.0", pip)
    assert choice.arguments == ("torch==2.13.0+cpu",)
    assert pip.asked == [["index", "versions", "torch"]]


@pytest.mark.parametrize("printed", [PRINTED.format(""), PRINTED.format("2.13.1+cpu, 2.13.0+cu130, "), ""])
def test_torch_comes_from_pytorchs_index_where_pip_finds_only_other_builds(printed: str) -> None:
    choice = choose_torch("2.13.0", FakePip(printed))
    assert choice.arguments == ("torch==2.13.0+cpu", "--index-url", "https://download.pytorch.org/whl/cpu")
    assert "PyTorch's CPU wheel index" in choice.reason


@given(st.lists(st.from_regex(r"[0-9]\.[0-9]{1,2}\.[0-9](\+cpu|\+cu130)?", fullmatch=True), min_size=1))
def test_listed_versions_are_read_whatever_they_are(versions: list[str]) -> None:
    printed = f"torch ({versions[0]})\nAvailable versions: {', '.join(versions)}\n"
    assert listed_versions(printed) == set(versions)
