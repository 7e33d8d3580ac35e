"""The connection to the registry's database: SQLite in a file, or PostgreSQL by URL."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry

from adapters.errors import RegistryUnavailableError, RegistryUrlError
from adapters.registry.postgresql import bound_waits, connect_options

# How long a writer of SQLite waits for another one to finish before it gives up.
LOCK_TIMEOUT_SECONDS = 30
TIMEOUT_SECONDS = 15.0
# Set on the engine for transactions that write. SQLite must know at their beginning: a reader that turns into
# a writer half-way can only fail.
WRITES = "hotswap_writes"
_LOOK_AGAIN_SECONDS = 0.01
_RESULT_CODE = 0xFF  # of SQLite's extended result codes, the part that says what it is


def connect(url: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> Engine:
    """Return an engine for `url` without connecting; raise RegistryUrlError when it cannot work.

    `timeout_seconds` is how long PostgreSQL may take for a statement.
    """
    parsed = _parse(url)
    is_sqlite = parsed.get_backend_name() == "sqlite"
    if is_sqlite:
        _prepare_file(parsed)
    try:
        # The pool checks a connection before use, so that a database restart is not an error.
        options = {} if is_sqlite else connect_options(parsed, timeout_seconds)
        engine = create_engine(parsed, pool_pre_ping=not is_sqlite, connect_args=options)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise RegistryUrlError(
            f"The registry needs a driver that is not installed for {parsed.drivername} ({error}). "
            "Install it: pip install 'psycopg[binary]'."
        ) from error
    if is_sqlite:
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        bound_waits(engine, timeout_seconds)
    return engine


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:  # the text may hold a password: do not repeat it
        raise RegistryUrlError(
            "The registry URL cannot be read. Expected 'sqlite:////path/to/registry.db' or "
            "'postgresql+psycopg://user:password@host/database'."
        ) from error
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise RegistryUrlError(
            f"The registry cannot be kept in {parsed.get_backend_name()!r}; use a sqlite or a postgresql URL."
        )
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise RegistryUrlError("The registry URL names no file: a registry in memory forgets at every start.")
    return parsed


def _prepare_file(url: URL) -> None:
    folder = Path(str(url.database)).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RegistryUnavailableError(
            f"The folder of the registry {url.database!r} cannot be made: {error.strerror}."
        ) from error


def _configure_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    # The driver's own habit of beginning transactions leaves out DDL; _begin_sqlite does it instead.
    raw: Any = connection
    if isinstance(raw, sqlite3.Connection):
        raw.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {LOCK_TIMEOUT_SECONDS * 1000}")
    _switch_to_wal(cursor)
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _switch_to_wal(cursor: DBAPICursor) -> None:
    """Readers and a writer beside each other. The file keeps the mode, so only the first to open it changes it.

    That first time SQLite waits for nobody, whatever busy_timeout says: of two that open a new file together one
    may be told at once that it is locked.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & _RESULT_CODE == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() >= deadline:
                raise
        time.sleep(_LOOK_AGAIN_SECONDS)


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
