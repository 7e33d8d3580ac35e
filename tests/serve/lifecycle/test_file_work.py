"""Work on files goes to a process of low priority where there is one, and to threads where there is none."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from adapters.check import check_adapter
from adapters.errors import AdapterChangedError
from adapters.store.store import AdapterStore
from serve.engine.scripted import SCRIPTED_TARGET
from serve.lifecycle.file_work import NICENESS, FileWork
from tests.serve.conftest import make_source

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def work() -> AsyncIterator[FileWork]:
    """With its process."""
    made = FileWork(in_process=True)
    made.expect()
    await made.wait_ready()
    yield made
    await made.close()


async def test_without_a_process_threads_do_it() -> None:
    work = FileWork()
    work.expect()
    await work.wait_ready()
    assert not work.process_is_ready
    assert await work.run(os.getpid) == os.getpid()
    await work.close()


async def test_the_process_checks_and_stores_as_a_thread_does_behind_everybody_else(
    work: FileWork, tmp_path: Path
) -> None:
    pid = await work.run(os.getpid)
    assert pid != os.getpid()
    assert psutil.Process(pid).nice() == min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
    folder, store = tmp_path / make_source(tmp_path, "risk"), AdapterStore(tmp_path / "store")
    report = await work.run(check_adapter, folder, target=SCRIPTED_TARGET)
    assert report == check_adapter(folder, target=SCRIPTED_TARGET)
    assert report.facts.digest is not None
    path = await work.run(store.publish, folder, report.facts.digest)
    assert path == store.path(report.facts.digest)
    assert await work.run(store.verify, report.facts.digest)


async def test_an_error_of_the_work_comes_back_as_itself(work: FileWork, tmp_path: Path) -> None:
    folder, store = tmp_path / make_source(tmp_path, "risk"), AdapterStore(tmp_path / "store")
    with pytest.raises(AdapterChangedError, match="changed after it was checked"):
        await work.run(store.publish, folder, "0" * 64)


async def test_when_the_process_is_killed_its_work_is_done_all_the_same_and_another_one_comes(
    work: FileWork,
) -> None:
    killed = psutil.Process(await work.run(os.getpid))
    killed.kill()
    await asyncio.to_thread(psutil.wait_procs, [killed])
    assert await work.run(os.getpid) == os.getpid()
    work.expect()
    await work.wait_ready()
    assert await work.run(os.getpid) not in (os.getpid(), killed.pid)


async def test_closing_ends_the_process(work: FileWork) -> None:
    process = psutil.Process(await work.run(os.getpid))
    await work.close()
    assert not process.is_running()
