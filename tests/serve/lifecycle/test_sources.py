"""Adapters from remote stores: known files alone, within limits, and nothing left behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from adapters.artefact import WEIGHTS_NAME
from adapters.config import CONFIG_NAME
from adapters.errors import AdapterFetchError, AdapterSourceError
from adapters.store.store import AdapterStore
from adapters.tiny import make_tiny_adapter
from bases.errors import HotswapError
from serve.engine.scripted import SCRIPTED_TARGET
from serve.errors import BodyTooLargeError, BusyError, RequestAbortedError
from serve.lifecycle import sources as sources_module
from serve.lifecycle.sources import SourceLimits, Sources, check_packages
from serve.running import RunningRequests

URL = "memory://bucket/adapters/risk"


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[MemoryFileSystem]:
    """A store with one good adapter, and a file beside it that nobody asked for."""
    files = MemoryFileSystem()
    folder = make_tiny_adapter(tmp_path / "risk", linear_modules=SCRIPTED_TARGET.linear_modules)
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        files.pipe(f"{URL}/{name}", (folder / name).read_bytes())
    files.pipe(f"{URL}/optimizer.pt", b"a pickle")
    yield files
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Sources]:
    def made(*, max_bytes: int = 2**20, seconds: float = 60.0) -> Sources:
        return Sources(
            AdapterStore(tmp_path / "store"),
            tmp_path,
            ["memory://bucket/adapters"],
            SourceLimits(max_bytes, seconds),
            protocols=("memory",),
        )

    return made


def left_behind(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "store").iterdir() if path.is_dir()]


async def refused(sources: Sources, url: str = URL) -> Exception:
    with pytest.raises(HotswapError) as caught:
        async with sources.open(url):
            pytest.fail("it was fetched")
    return caught.value


async def test_the_known_files_are_fetched_and_go_with_the_block(
    make: Callable[..., Sources], remote: MemoryFileSystem, tmp_path: Path
) -> None:
    async with make().open(URL) as folder:
        assert sorted(path.name for path in folder.iterdir()) == [CONFIG_NAME, WEIGHTS_NAME]
        assert (folder / WEIGHTS_NAME).read_bytes() == (tmp_path / "risk" / WEIGHTS_NAME).read_bytes()
    assert left_behind(tmp_path) == []


async def test_a_folder_below_the_root_is_opened_where_it_is(
    make: Callable[..., Sources], tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    async with make().open("here") as folder:
        assert folder == tmp_path / "here"
    assert isinstance(await refused(make(), "there"), AdapterSourceError)


async def test_what_is_not_allowed_is_not_looked_at(
    make: Callable[..., Sources], remote: MemoryFileSystem
) -> None:
    for url in ("memory://bucket/other", "s3://bucket/adapters/risk"):
        assert isinstance(await refused(make(), url), AdapterSourceError)


async def test_a_place_without_an_adapter_says_so(
    make: Callable[..., Sources], remote: MemoryFileSystem, tmp_path: Path
) -> None:
    error = await refused(make(), "memory://bucket/adapters/none")
    assert isinstance(error, AdapterSourceError)
    assert "There is no adapter at memory://bucket/adapters/none" in str(error)
    remote.rm(f"{URL}/{CONFIG_NAME}")
    remote.pipe(f"{URL}/{CONFIG_NAME}/inside", b"a folder where a file should be")
    assert isinstance(await refused(make()), AdapterSourceError)
    assert left_behind(tmp_path) == []


async def test_a_file_over_its_limit_is_refused_before_and_while_it_comes(
    make: Callable[..., Sources], remote: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(await refused(make(max_bytes=100)), BodyTooLargeError)
    genuine = MemoryFileSystem.info

    def small(self: Any, path: str, **options: Any) -> dict[str, Any]:
        return {**genuine(self, path, **options), "size": None}

    monkeypatch.setattr(MemoryFileSystem, "info", small)
    assert isinstance(await refused(make(max_bytes=100)), BodyTooLargeError)
    assert left_behind(tmp_path) == []


async def test_what_a_store_says_of_a_failure_is_not_repeated(
    make: Callable[..., Sources], remote: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for raised, kind in ((RuntimeError, AdapterFetchError), (PermissionError, AdapterSourceError)):

        def fail(self: Any, path: str, **options: Any) -> Any:
            raise raised("https://store/?X-Amz-Signature=topsecret")  # noqa: B023 - called in this turn

        monkeypatch.setattr(MemoryFileSystem, "info", fail)
        error = await refused(make())
        assert isinstance(error, kind)
        assert "topsecret" not in str(error)
        assert error.__cause__ is None
    assert left_behind(tmp_path) == []


async def test_a_fetch_that_takes_too_long_is_given_up(
    make: Callable[..., Sources], remote: MemoryFileSystem
) -> None:
    error = await refused(make(seconds=-1.0))
    assert isinstance(error, AdapterFetchError)
    assert "--upload-seconds" in str(error)


async def test_a_shutdown_ends_a_fetch_and_nothing_stays(
    make: Callable[..., Sources], remote: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    running = RunningRequests()
    begun, release = threading.Event(), threading.Event()
    genuine = MemoryFileSystem.info

    def slow(self: Any, path: str, **options: Any) -> Any:
        begun.set()
        release.wait(30)
        return genuine(self, path, **options)

    monkeypatch.setattr(MemoryFileSystem, "info", slow)

    async def fetch() -> Exception:
        with pytest.raises(RequestAbortedError) as caught, running.track("load risk"):
            async with make().open(URL):
                pytest.fail("it was fetched")
        return caught.value

    fetching = asyncio.create_task(fetch())
    await asyncio.to_thread(begun.wait, 30)
    running.abort_all(RequestAbortedError("the server shuts down"))
    await asyncio.sleep(0)
    release.set()
    assert isinstance(await fetching, RequestAbortedError)
    assert left_behind(tmp_path) == []


async def test_no_more_than_a_few_are_fetched_at_once(
    make: Callable[..., Sources], remote: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources_module, "MAX_FETCHES", 1)
    sources = make()
    async with sources.open(URL):
        assert isinstance(await refused(sources), BusyError)
    async with sources.open(URL):
        pass


def test_a_store_whose_package_is_missing_is_named_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(protocol: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.get_filesystem_class", missing)
    with pytest.raises(AdapterSourceError, match="pip install s3fs"):
        check_packages(["s3://bucket"])
