"""Against a fake hub: huggingface_hub's two functions are replaced, its errors are its own."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from types import SimpleNamespace

import httpx
import huggingface_hub
import pytest
from huggingface_hub import errors

from bases.errors import BaseInvalidError, BaseNotFoundError
from bases.hub import HUB_ID, download_base

SHA = "0123456789abcdef0123456789abcdef01234567"
FILES = ["config.json", "model.safetensors", "tokenizer.json"]


class FakeHub:
    """Answers `model_info` and `snapshot_download`, or raises what it was told to; records the calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = list(FILES)
        self.info_error: Exception | None = None
        self.download_error: Exception | None = None
        self.downloads: list[dict] = []
        self.asked: list[tuple[str, str | None]] = []

    def model_info(self, repository, *, revision=None):
        self.asked.append((repository, revision))
        if self.info_error:
            raise self.info_error
        return SimpleNamespace(sha=SHA, siblings=[SimpleNamespace(rfilename=name) for name in self.files])

    def snapshot_download(self, repository, **options):
        self.downloads.append({"repository": repository, **options})
        if self.download_error:
            raise self.download_error
        return str(self.folder / "snapshots" / SHA)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    fake = FakeHub(tmp_path)
    monkeypatch.setattr(huggingface_hub, "model_info", fake.model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    return fake


def http_error(kind, status: int):
    request = httpx.Request("GET", "https://huggingface.co/api/models/org/name")
    return kind("refused", response=httpx.Response(status, request=request))


def test_a_branch_is_pinned_to_its_commit(hub, tmp_path):
    folder, commit = download_base("org/name", revision="main")
    assert (folder, commit) == (tmp_path / "snapshots" / SHA, SHA)
    assert hub.asked == [("org/name", "main")]
    assert [download["revision"] for download in hub.downloads] == [SHA]


@pytest.mark.parametrize(
    ("file", "fetched"),
    [
        ("model-00001-of-00002.safetensors", True),
        ("model.safetensors.index.json", True),
        ("tokenizer.model", True),
        ("merges.txt", True),
        ("chat_template.jinja", True),
        ("pytorch_model.bin", False),
        ("model.pt", False),
        ("modeling_custom.py", False),
        ("original/params.json", False),
        ("consolidated.safetensors", False),
        ("onnx/config.json", False),
    ],
)
def test_only_what_serving_needs_is_fetched(hub, file, fetched):
    download_base("org/name")
    wanted = any(fnmatch.fnmatch(file, pattern) for pattern in hub.downloads[0]["allow_patterns"])
    unwanted = any(fnmatch.fnmatch(file, pattern) for pattern in hub.downloads[0]["ignore_patterns"])
    assert (wanted and not unwanted) is fetched


def test_python_files_come_only_with_trust(hub):
    download_base("org/name")
    download_base("org/name", trust_remote_code=True)
    assert ["*.py" in download["allow_patterns"] for download in hub.downloads] == [False, True]


def test_a_repository_without_safetensors_is_refused_before_the_download(hub):
    hub.files = ["config.json", "pytorch_model.bin"]
    with pytest.raises(BaseInvalidError, match="no safetensors weights"):
        download_base("org/name")
    assert hub.downloads == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (http_error(errors.GatedRepoError, 403), r"is gated.*hf auth login"),
        (http_error(errors.RepositoryNotFoundError, 401), "has no model 'org/name', or it is private"),
        (http_error(errors.RevisionNotFoundError, 404), "no revision 'v9'"),
        (errors.HFValidationError("too long"), "is not a hub id: too long"),
    ],
)
def test_each_refusal_of_the_hub_says_what_to_do(hub, error, message):
    hub.info_error = error
    with pytest.raises(BaseNotFoundError, match=message):
        download_base("org/name", revision="v9")
    assert hub.downloads == []


OFFLINE = [
    httpx.ConnectError("[Errno -2] Name or service not known"),
    httpx.ReadTimeout(""),
    errors.OfflineModeIsEnabled("HF_HUB_OFFLINE is set"),
    http_error(errors.HfHubHTTPError, 503),
]


@pytest.mark.parametrize("error", OFFLINE, ids=lambda error: type(error).__name__)
def test_without_a_connection_the_cache_serves(hub, tmp_path, error):
    hub.info_error = error
    lines: list[str] = []
    assert download_base("org/name", revision="v2", progress=lines.append) == (
        tmp_path / "snapshots" / SHA,
        SHA,
    )
    [download] = hub.downloads
    assert download["local_files_only"] is True
    assert download["revision"] == "v2"
    assert "cannot be reached" in lines[-1]


@pytest.mark.parametrize("error", OFFLINE, ids=lambda error: type(error).__name__)
def test_without_connection_and_cache_it_says_what_was_tried(hub, error):
    hub.info_error = error
    hub.download_error = errors.LocalEntryNotFoundError("nothing cached")
    with pytest.raises(
        BaseNotFoundError,
        match=r"org/name@v2 is not on this machine.*Tried the hub, then its cache.*hf download",
    ):
        download_base("org/name", revision="v2")


def test_a_download_that_breaks_off_says_that_it_can_go_on(hub):
    hub.download_error = httpx.ReadError("connection reset")
    with pytest.raises(BaseNotFoundError, match=r"broke off: connection reset.*goes on where it stopped"):
        download_base("org/name")


@pytest.mark.parametrize("text", ["org/name", "org/name@main", "Qwen/Qwen2.5-0.5B", "a_b/c.d-e@refs/pr/1"])
def test_hub_ids_are_recognised(text):
    assert HUB_ID.fullmatch(text)


@pytest.mark.parametrize("text", ["name", "../x", "./a", "/a/b", "a/b/c", "a/b@", "-a/b", "a/.b", "a /b"])
def test_other_text_is_no_hub_id(text):
    assert not HUB_ID.fullmatch(text)
