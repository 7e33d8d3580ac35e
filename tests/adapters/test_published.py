"""What a user may write for an adapter."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.config import CONFIG_NAME
from adapters.errors import AdapterNameError, AdapterNotFoundError
from adapters.published import FoundAdapter, find_adapter


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("risk/ca967498", "risk/0badcafe", "tone/3f2a91c0"):
        put(tmp_path / "adapters" / name)
    return tmp_path


def put(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / CONFIG_NAME).write_text("{}")
    return folder


def test_a_folder_is_that_folder_and_called_after_it(home: Path) -> None:
    folder = put(home / "elsewhere" / "mine")
    assert find_adapter(str(folder), home=home) == FoundAdapter("mine", folder)


def test_the_folder_of_a_published_version_is_called_after_its_name(home: Path) -> None:
    folder = home / "adapters" / "risk" / "ca967498"
    assert find_adapter(str(folder), home=home) == FoundAdapter("risk", folder)


@pytest.mark.parametrize("text", ["risk/ca967498", "risk@ca967498", "risk@ca967498" + "0" * 56])
def test_a_published_version_is_found_by_name_and_digest(home: Path, text: str) -> None:
    assert find_adapter(text, home=home) == FoundAdapter("risk", home / "adapters" / "risk" / "ca967498")


def test_a_name_alone_is_enough_where_there_is_one_version(home: Path) -> None:
    assert find_adapter("tone", home=home).folder.name == "3f2a91c0"
    with pytest.raises(AdapterNotFoundError, match=r"2 versions.*risk/0badcafe, risk/ca967498.*Name one"):
        find_adapter("risk", home=home)


@pytest.mark.parametrize("text", ["nobody", "risk/ffffffff", "/no/such/folder", "./risk", "~/nothing"])
def test_what_is_not_there_is_refused(home: Path, text: str) -> None:
    with pytest.raises(AdapterNotFoundError):
        find_adapter(text, home=home)


@pytest.mark.parametrize("text", ["", "Risk", "risk/../tone", "risk/xyz", "a b"])
def test_what_is_no_name_is_refused(home: Path, text: str) -> None:
    with pytest.raises(AdapterNameError):
        find_adapter(text, home=home)
