from __future__ import annotations

from pathlib import Path

import pytest

from bases import resolve as resolve_module
from bases.errors import BaseInvalidError, BaseNotFoundError
from bases.resolve import made_folder, resolve_base


@pytest.fixture
def embedded(monkeypatch, tiny_base):
    """The embedded default stands for a tiny base; the homes that were asked for are recorded."""
    homes: list[Path] = []

    def materialise(home, *, progress):
        homes.append(home)
        return tiny_base

    monkeypatch.setattr(resolve_module, "materialise_embedded", materialise)
    return homes


@pytest.fixture
def hub(monkeypatch, tiny_base):
    """The hub gives a tiny base for everything; what was asked of it is recorded."""
    calls: list[tuple[str, str | None, bool]] = []

    def download(repository, *, revision, trust_remote_code, progress):
        calls.append((repository, revision, trust_remote_code))
        return tiny_base, "c0ffee"

    monkeypatch.setattr(resolve_module, "download_base", download)
    return calls


@pytest.mark.parametrize("reference", [None, "default", "smollm2-135m-instruct"])
def test_the_embedded_default_has_three_names(tmp_path, tiny_base, embedded, reference):
    base = resolve_base(reference, home=tmp_path)
    assert base.name == "smollm2-135m-instruct"
    assert base.reference == (reference or "default")
    assert (base.path, base.revision, base.source) == (tiny_base, None, "embedded")
    assert embedded == [tmp_path]


def test_a_folder_is_that_folder_under_its_own_name(tmp_path, base_copy):
    folder = base_copy("My base, v2!")
    base = resolve_base(str(folder), home=tmp_path)
    assert base.name == "My-base-v2"
    assert (base.path, base.revision, base.source) == (folder, None, "folder")


def test_a_relative_folder_becomes_absolute(tmp_path, base_copy, monkeypatch):
    folder = base_copy("here")
    monkeypatch.chdir(folder)
    base = resolve_base(".", home=tmp_path)
    assert (base.name, base.path, base.reference) == ("here", folder, ".")


def test_a_tilde_is_the_users_home(tmp_path, base_copy, monkeypatch):
    folder = base_copy("mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_base("~/mine", home=tmp_path).path == folder


def test_a_folder_goes_before_a_hub_model_of_the_same_name(tmp_path, base_copy, monkeypatch, hub):
    (tmp_path / "org").mkdir()
    base_copy("org/name")
    monkeypatch.chdir(tmp_path)
    assert resolve_base("org/name", home=tmp_path).source == "folder"
    assert hub == []


def test_a_folder_that_is_no_base_is_refused(tmp_path):
    with pytest.raises(BaseInvalidError, match=r"config\.json is missing"):
        resolve_base(str(tmp_path), home=tmp_path)


@pytest.mark.parametrize(
    ("reference", "revision", "asked"),
    [
        ("Org/Some-Model.1", None, None),
        ("Org/Some-Model.1@v2", None, "v2"),
        ("Org/Some-Model.1", "v2", "v2"),
        ("Org/Some-Model.1@v2", "v2", "v2"),
        ("Org/Some-Model.1@refs/pr/3", None, "refs/pr/3"),
    ],
)
def test_a_hub_id_is_fetched_at_its_revision(tmp_path, tiny_base, hub, reference, revision, asked):
    base = resolve_base(reference, home=tmp_path, revision=revision)
    assert hub == [("Org/Some-Model.1", asked, False)]
    assert base.name == "some-model.1"
    assert (base.path, base.revision, base.source) == (tiny_base, "c0ffee", "hub")
    assert base.reference == reference


def test_two_different_revisions_are_refused(tmp_path, hub):
    with pytest.raises(BaseNotFoundError, match=r"'v2'.*'v3': give one"):
        resolve_base("org/name@v2", home=tmp_path, revision="v3")


@pytest.mark.parametrize("reference", ["default", "folder"])
def test_a_revision_of_what_is_not_on_the_hub_is_refused(tmp_path, tiny_base, embedded, reference):
    with pytest.raises(BaseInvalidError, match="belongs to a hub id"):
        resolve_base(str(tiny_base) if reference == "folder" else reference, home=tmp_path, revision="v2")


def test_trust_reaches_the_hub(tmp_path, hub):
    resolve_base("org/name", home=tmp_path, trust_remote_code=True)
    assert hub == [("org/name", None, True)]


@pytest.mark.parametrize(
    "reference", ["./nowhere", "/no/such/folder", "gpt2", "a/b/c", "https://x/y", "a b/c", ""]
)
def test_what_is_neither_folder_nor_hub_id_is_told_what_would_be(tmp_path, hub, monkeypatch, reference):
    monkeypatch.chdir(tmp_path)
    if not reference:
        # The empty path is the working directory: a folder, if not a base.
        with pytest.raises(BaseInvalidError, match=r"config\.json is missing"):
            resolve_base(reference, home=tmp_path)
        return
    with pytest.raises(
        BaseNotFoundError, match=r"not a folder on this machine.*org/name.*smollm2-135m-instruct"
    ):
        resolve_base(reference, home=tmp_path)
    assert hub == []


def test_a_file_is_told_that_it_is_one(tmp_path):
    (tmp_path / "model.gguf").write_text("x")
    with pytest.raises(BaseNotFoundError, match="it is a file, not a folder"):
        resolve_base(str(tmp_path / "model.gguf"), home=tmp_path)


def test_a_base_that_was_made_here_has_its_folders_name(tmp_path, base_copy, monkeypatch):
    folder = made_folder(tmp_path) / "tiny-gptq-w4a16"
    folder.parent.mkdir(parents=True)
    base_copy("anything").rename(folder)
    base = resolve_base("tiny-gptq-w4a16", home=tmp_path)
    assert (base.name, base.path, base.source) == ("tiny-gptq-w4a16", folder, "folder")
    for escape in ("../made/tiny-gptq-w4a16", ".tiny-gptq-w4a16"):
        with pytest.raises(BaseNotFoundError):
            resolve_base(escape, home=tmp_path)


def test_a_folder_here_goes_before_a_base_that_was_made(tmp_path, base_copy, monkeypatch):
    (made_folder(tmp_path) / "mine").mkdir(parents=True)
    folder = base_copy("mine")
    monkeypatch.chdir(tmp_path)
    assert resolve_base("mine", home=tmp_path).path == folder
