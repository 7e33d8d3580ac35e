"""Folders of the store in which an adapter takes shape, filled in threads and gone when the block ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from adapters.store.store import AdapterStore

P = ParamSpec("P")
T = TypeVar("T")


@asynccontextmanager
async def staging_folder(store: AdapterStore) -> AsyncIterator[Path]:
    """An empty folder, removed with all that is in it, however the block ends. Raises AdapterStoreError."""
    folder = await run_whole(store.open_staging)
    try:
        yield folder
    finally:
        await run_whole(store.close_staging, folder)


async def run_whole(work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Run `work` in a thread, and wait for its end even when cancelled: the folder is not removed under it."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *arguments, **named))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise
