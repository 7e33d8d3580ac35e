"""A registry on each database: SQLite always, PostgreSQL where HOTSWAP_TEST_POSTGRES_URL names one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import MetaData

from adapters.registry.database import connect
from adapters.registry.registry import Registry


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'registry' / 'registry.db'}"
        return
    with empty_postgres() as postgres:
        yield postgres


@contextlib.contextmanager
def empty_postgres() -> Iterator[str]:
    """The URL of a database without tables; skips the test where there is none."""
    postgres = os.environ.get("HOTSWAP_TEST_POSTGRES_URL")
    if postgres is None:
        pytest.skip("HOTSWAP_TEST_POSTGRES_URL names no PostgreSQL")
    _empty(postgres)
    yield postgres
    _empty(postgres)


def _empty(url: str) -> None:
    engine = connect(url)
    with engine.begin() as connection:
        found = MetaData()
        found.reflect(connection)
        found.drop_all(connection)
    engine.dispose()


@pytest.fixture
def registry(url: str) -> Iterator[Registry]:
    with Registry(url) as opened:
        yield opened
