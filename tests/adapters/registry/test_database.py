from __future__ import annotations

import sqlite3
import threading
from typing import Any

import pytest
from sqlalchemy import Engine, event

from adapters.errors import RegistryError, RegistryUnavailableError, RegistryUrlError
from adapters.registry import database
from adapters.registry.database import WRITES, connect
from adapters.registry.records import Event
from adapters.registry.registry import Registry


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "cannot be read"),
        ("not a url", "cannot be read"),
        ("mysql://host/db", "'mysql'"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
    ],
)
def test_a_url_that_cannot_work_is_refused(url, words):
    with pytest.raises(RegistryUrlError, match=words):
        connect(url)


def test_a_malformed_url_does_not_repeat_its_password():
    with pytest.raises(RegistryUrlError) as caught:
        connect("postgresql//user:hunter2@host:port/x")
    assert "hunter2" not in str(caught.value)


def test_a_missing_driver_is_named_with_the_way_to_install_it(monkeypatch):
    def missing(*_, **__):
        raise ModuleNotFoundError("No module named 'psycopg'")

    monkeypatch.setattr(database, "create_engine", missing)
    with pytest.raises(RegistryUrlError, match=r"pip install 'psycopg\[binary\]'"):
        connect("postgresql://host/db")


def test_sqlite_is_set_up_for_several_readers_and_one_waiting_writer(tmp_path):
    engine = connect(f"sqlite:///{tmp_path / 'a' / 'b' / 'r.db'}")
    with engine.connect() as connection:

        def pragma(name: str):
            return connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()

        assert pragma("journal_mode") == "wal"
        assert pragma("foreign_keys") == 1
        assert pragma("busy_timeout") == database.LOCK_TIMEOUT_SECONDS * 1000
    engine.dispose()


def test_a_writer_waits_for_another_instead_of_failing(tmp_path):
    with Registry(f"sqlite:///{tmp_path / 'r.db'}") as registry:
        other = sqlite3.connect(tmp_path / "r.db", isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        begins = threading.Event()

        def notice(_connection, _cursor, statement, *_rest):
            if statement == "BEGIN IMMEDIATE":
                begins.set()

        event.listen(Engine, "before_cursor_execute", notice)
        writer = threading.Thread(target=registry.append_event, args=[Event("me", "load", "ok")])
        writer.start()
        assert begins.wait(30)
        event.remove(Engine, "before_cursor_execute", notice)
        assert registry.list_events() == [], "a reader does not wait"
        other.execute("COMMIT")
        other.close()
        writer.join(30)
        assert len(registry.list_events()) == 1


class LockedCursor:
    """SQLite's while two processes open a new file together: it says so at once, whatever busy_timeout says."""

    def __init__(self, times: int, code: int) -> None:
        self.left = times
        self._code = code

    def execute(self, _statement: str) -> None:
        if self.left > 0:
            self.left -= 1
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = self._code
            raise error


def locked(times: int, code: int = sqlite3.SQLITE_BUSY_RECOVERY) -> Any:
    return LockedCursor(times, code)


def test_whoever_opens_a_new_file_beside_another_one_looks_again(monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr("adapters.registry.database.time.sleep", waits.append)
    cursor = locked(3)
    database._switch_to_wal(cursor)
    assert (cursor.left, len(waits)) == (0, 3)


def test_it_gives_up_in_the_end_and_at_once_when_it_is_something_else(monkeypatch):
    with pytest.raises(sqlite3.OperationalError):
        database._switch_to_wal(locked(1, sqlite3.SQLITE_READONLY))
    monkeypatch.setattr(database, "LOCK_TIMEOUT_SECONDS", 0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        database._switch_to_wal(locked(1))


def test_a_database_that_stays_locked_is_an_error_with_a_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "LOCK_TIMEOUT_SECONDS", 0)
    with Registry(f"sqlite:///{tmp_path / 'r.db'}") as registry:
        other = sqlite3.connect(tmp_path / "r.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RegistryUnavailableError, match="locked"):
            registry.append_event(Event("me", "load", "ok"))
        other.close()
        registry.append_event(Event("me", "load", "ok"))


def test_a_file_that_is_no_database_is_an_error_with_a_reason(tmp_path):
    (tmp_path / "r.db").write_text("this is not a database, but it is long enough to be looked at " * 10)
    with pytest.raises(RegistryError, match="not a database"):
        Registry(f"sqlite:///{tmp_path / 'r.db'}").open()


def test_a_folder_that_cannot_be_made_is_an_error_with_a_reason(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RegistryUnavailableError, match="cannot be made"):
        Registry(f"sqlite:///{tmp_path / 'file' / 'r.db'}").open()


def test_transactions_begin_as_writers_only_where_they_write(tmp_path):
    engine = connect(f"sqlite:///{tmp_path / 'r.db'}")
    with engine.begin() as reader, engine.begin() as second_reader:
        reader.exec_driver_sql("SELECT 1")
        second_reader.exec_driver_sql("SELECT 1")
        with engine.execution_options(**{WRITES: True}).begin() as writer:
            writer.exec_driver_sql("CREATE TABLE t (x)")
    engine.dispose()
