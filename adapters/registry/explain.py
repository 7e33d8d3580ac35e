"""What a database says when it fails, as an error of the registry that says what to do."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

from sqlalchemy.exc import OperationalError, SQLAlchemyError

from adapters.errors import RegistryError, RegistryUnavailableError

_RESULT_CODE = 0xFF  # of SQLite's extended result codes, the part that says what it is
_SQLITE_WAYS_OUT = {
    sqlite3.SQLITE_FULL: "Free space on the disk that holds its file.",
    sqlite3.SQLITE_IOERR: "See that the disk that holds its file has space and works.",
    sqlite3.SQLITE_READONLY: "Let this user write its file and the folder around it.",
    sqlite3.SQLITE_CANTOPEN: "See that its file and the folder around it can be read and written.",
    sqlite3.SQLITE_PERM: "Let this user read and write its file.",
    sqlite3.SQLITE_BUSY: "Another process holds it; try again when that is done.",
    sqlite3.SQLITE_LOCKED: "Another process holds it; try again when that is done.",
    sqlite3.SQLITE_NOTADB: "Its file is something else; name another one in the URL, or move that away.",
    sqlite3.SQLITE_CORRUPT: "Its file is damaged; put a copy back, or move it away for an empty one.",
}
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRESQL_WAYS_OUT = {
    "53100": "Free space on the disk of the database's server.",
    "57014": "It is busy, or something holds what was asked for; --registry-timeout-seconds says how long to wait.",
    "25006": "It takes no writes; name the primary in the URL.",
}


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn what the database says into an error of the registry, without its SQL and its parameters.

    Raises RegistryUnavailableError where it cannot work now, RegistryError for anything else.
    """
    try:
        yield
    except OperationalError as error:
        said = _one_line(error.orig or error)
        way_out = _way_out(error.orig)
        if way_out is None:
            text = f"does not answer: {said}. See that it runs and that the URL is right."
        else:
            text = f"cannot be used now: {said}. {way_out}"
        raise RegistryUnavailableError(f"The registry's database {text}") from error
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        way_out = _way_out(cause)
        raise RegistryError(
            f"The registry failed: {_one_line(cause)}." + (f" {way_out}" if way_out else "")
        ) from error


def _way_out(said: BaseException | None) -> str | None:
    """What to do about it; None where the driver's code says nothing of that."""
    code = getattr(said, "sqlite_errorcode", None)
    if code is not None:
        return _SQLITE_WAYS_OUT.get(code & _RESULT_CODE)
    return _POSTGRESQL_WAYS_OUT.get(getattr(said, "sqlstate", None) or "")


def _one_line(error: BaseException) -> str:
    """What the driver says; some write several lines."""
    return " ".join(str(error).split()).rstrip(".")
