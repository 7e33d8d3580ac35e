from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.errors import AdapterSourceError
from adapters.source import RemoteSource, is_remote, parse_remote, resolve_remote, resolve_source


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


def remote(*prefixes: str) -> list[RemoteSource]:
    return [parse_remote(prefix) for prefix in prefixes]


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("s3://bucket/adapters/risk/v1", "s3://bucket/adapters"),
        ("s3://bucket/adapters", "s3://bucket/adapters/"),
        ("gs://bucket/risk", "gs://bucket"),
        ("hf://org/risk@a1b2c3/sub", "hf://org"),
        ("hf://org/risk@main", "hf://org/risk"),
    ],
)
def test_a_url_below_an_allowed_one_is_taken(text, prefix):
    assert str(resolve_remote(text, remote("hf://another", prefix))) == text


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/adapters-of-others/risk",
        "s3://bucket",
        "s3://other/adapters/risk",
        "gs://bucket/adapters/risk",
        "s3://bucket/adapters/../secret",
        "s3://bucket/adapters/./risk",
        "s3://bucket/adapters//risk",
        "s3://bucket/adapters/risk?versionId=1",
        "s3://bucket/adapters/%2e%2e/secret",
        "s3://key:secret@bucket/adapters/risk",
        "s3://key@bucket/adapters/risk",
        "simplecache::s3://bucket/adapters/risk",
        "zip://risk::s3://bucket/adapters",
        "S3://bucket/adapters/risk",
        "http://169.254.169.254/adapters",
        "file:///etc",
        "s3://bucket/adapters/ri\nsk",
        "s3://bucket/adapters/" + "a" * 1100,
        "s3://",
        "://",
    ],
)
def test_every_other_url_is_refused(text):
    assert is_remote(text)
    with pytest.raises(AdapterSourceError) as refused:
        resolve_remote(text, remote("s3://bucket/adapters", "hf://org"))
    assert "secret@" not in str(refused.value)
    assert "versionId" not in str(refused.value)


def test_without_an_allowed_url_nothing_is_taken():
    with pytest.raises(AdapterSourceError, match="--allowed-sources"):
        resolve_remote("s3://bucket/risk", [])


def test_a_refused_user_name_is_not_repeated():
    with pytest.raises(AdapterSourceError) as refused:
        parse_remote("s3://AKIAKEY@bucket/risk")
    assert "AKIAKEY" not in str(refused.value)


@given(st.text(max_size=60))
def test_no_text_behind_an_allowed_url_leads_out_of_it(rest):
    try:
        found = resolve_remote("s3://bucket/adapters/" + rest, remote("s3://bucket/adapters"))
    except AdapterSourceError:
        return
    assert str(found).startswith("s3://bucket/adapters")
    assert ".." not in found.segments
