from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.errors import AdapterSourceError
from adapters.source import resolve_source


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "risk" / "v1").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (tmp_path / "rootless").mkdir()
    return folder


def test_a_relative_path_is_taken_below_the_first_root(root, tmp_path):
    assert resolve_source("risk/v1", [root, tmp_path / "secret"]) == root / "risk" / "v1"
    assert resolve_source("./risk//v1/", [root]) == root / "risk" / "v1"


def test_an_absolute_path_below_any_root_is_taken(root, tmp_path):
    assert resolve_source(str(tmp_path / "secret"), [root, tmp_path / "secret"]) == tmp_path / "secret"


def test_a_link_that_stays_inside_is_followed_and_one_that_leaves_is_refused(root, tmp_path):
    (root / "current").symlink_to("risk/v1")
    assert resolve_source("current", [root]) == root / "risk" / "v1"
    (root / "out").symlink_to(tmp_path / "secret")
    with pytest.raises(AdapterSourceError):
        resolve_source("out", [root])


def test_a_root_may_itself_be_a_link(root, tmp_path):
    (tmp_path / "alias").symlink_to(root)
    assert resolve_source("risk/v1", [tmp_path / "alias"]) == root / "risk" / "v1"


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "..",
        "../secret",
        "risk/../../secret",
        "risk/..",
        "~",
        "~/x",
        "risk\\v1",
        "risk\0",
        "risk\nv1",
        "\ud800",
        "%2e%2e%2fsecret",
        "risk/v\uff11",
        "https://example.org/risk",
        "file:///etc",
        "/etc",
        "/",
        "nothing",
        "a" * 10_000,
        "a" * 500,
    ],
)
def test_everything_else_is_refused_without_a_path_of_this_machine(root, tmp_path, text):
    with pytest.raises(AdapterSourceError) as caught:
        resolve_source(text, [root])
    message = str(caught.value)
    assert str(tmp_path) not in message
    assert message.isprintable()
    assert len(message) < 400


def test_a_sibling_whose_name_begins_like_the_root_is_outside(root, tmp_path):
    with pytest.raises(AdapterSourceError):
        resolve_source(str(tmp_path / "rootless"), [root])


def test_missing_a_file_and_outside_look_the_same(root, tmp_path):
    (tmp_path / "file").touch()
    messages = set()
    for name in ("secret", "absent", "file"):
        (root / "link").unlink(missing_ok=True)
        (root / "link").symlink_to(tmp_path / name)
        with pytest.raises(AdapterSourceError) as caught:
            resolve_source("link", [root])
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_a_loop_of_links_is_refused(root):
    (root / "loop").symlink_to("loop")
    with pytest.raises(AdapterSourceError):
        resolve_source("loop", [root])


def test_without_a_root_every_source_is_refused():
    with pytest.raises(AdapterSourceError, match="no adapter folder is configured"):
        resolve_source("risk", [])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet="./\\~ab\0risk%", max_size=30) | st.text(max_size=20))
def test_whatever_is_accepted_lies_below_the_root(root, text):
    try:
        found = resolve_source(text, [root])
    except AdapterSourceError:
        return
    assert found.is_relative_to(root)
