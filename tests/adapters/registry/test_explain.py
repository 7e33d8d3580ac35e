"""What is said when the database fails: what it was, and what can be done about it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InternalError, OperationalError

from adapters.errors import RegistryError, RegistryUnavailableError
from adapters.name import AdapterVersion
from adapters.registry.explain import explained
from adapters.registry.records import Event, NewVersion
from adapters.registry.registry import Registry


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def test_a_full_disk_is_no_matter_of_the_url(tmp_path: Path):
    with Registry(url(tmp_path / "registry.db")) as registry:
        with registry.session(writes=False) as session:
            # The database may not grow any more, as on a full disk.
            pages = session.execute(text("PRAGMA page_count")).scalar_one()
            session.execute(text(f"PRAGMA max_page_count = {pages}"))
        added = NewVersion(AdapterVersion("risk", "1" * 64), 8, 1000, "f" * 64, "x")
        with pytest.raises(RegistryUnavailableError) as refused:
            registry.append_events([Event("me", "load", "done", detail={"text": "x" * 1000})] * 100)
        assert "full" in str(refused.value)
        assert "Free space on the disk that holds its file" in str(refused.value)
        assert "URL" not in str(refused.value)
        assert registry.list_events() == []
        with registry.session(writes=False) as session:
            session.execute(text("PRAGMA max_page_count = 1000000"))
        assert registry.add_version(added).version == added.version


def test_a_file_that_is_no_database_is_named_so(tmp_path: Path):
    (tmp_path / "notes.db").write_text("minutes of the meeting\n" * 100)
    with pytest.raises(RegistryError, match=r"not a database\. Its file is something else"):
        Registry(url(tmp_path / "notes.db")).open()
    assert (tmp_path / "notes.db").read_text().startswith("minutes")


def test_a_file_that_cannot_be_opened_is_a_matter_of_access(tmp_path: Path):
    (tmp_path / "registry.db").mkdir()
    with pytest.raises(RegistryUnavailableError, match="can be read and written"):
        Registry(url(tmp_path / "registry.db")).open()


@pytest.mark.parametrize(
    ("kind", "sqlstate", "wanted"),
    [
        (OperationalError, "53100", "Free space on the disk of the database's server"),
        (InternalError, "25006", "name the primary"),
        (OperationalError, None, "See that it runs and that the URL is right"),
    ],
)
def test_the_codes_of_postgresql_are_read(kind: type[Exception], sqlstate: str | None, wanted: str):
    said = RuntimeError("the server said\nso")
    said.sqlstate = sqlstate  # type: ignore[attr-defined]
    with pytest.raises(RegistryError, match=wanted) as refused, explained():
        raise kind("UPDATE secret", {"key": "secret"}, said)
    assert "the server said so" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_code_that_says_nothing_of_a_way_out_keeps_the_general_one():
    said = sqlite3.OperationalError("no such table: versions")
    said.sqlite_errorcode = sqlite3.SQLITE_ERROR
    with pytest.raises(RegistryUnavailableError, match="the URL is right"), explained():
        raise OperationalError("SELECT", {}, said)
