"""How long PostgreSQL may take: without limits a server that hangs holds whoever asks it for ever.

The server is told to end statements itself, and what it says then is the better reason; a server that says nothing
more, stopped or behind a cable that was pulled, is given up from here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import URL, Engine, event

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.abc import PQGen

V = TypeVar("V")

_CONNECT_SECONDS = 10.0  # the most, for each host of the URL
_GRACE_SECONDS = 2.0  # after which the server should have ended the statement itself
_LOOK_SECONDS = 0.1
_KEEPALIVE = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}  # seconds, seconds, probes


def connect_options(url: URL, seconds: float) -> dict[str, Any]:
    """What libpq is told so that nothing takes longer than `seconds`; what the URL says itself stays as it is.

    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
    """
    milliseconds = max(1, round(seconds * 1000))
    options: Mapping[str, Any] = {
        "connect_timeout": max(2, round(min(seconds, _CONNECT_SECONDS))),  # libpq knows none below 2
        "tcp_user_timeout": milliseconds,
        **_KEEPALIVE,
        # The second: a gateway that is stopped in the middle of a change would hold up all the others.
        "options": f"-c statement_timeout={milliseconds} -c idle_in_transaction_session_timeout={milliseconds}",
    }
    return {name: value for name, value in options.items() if name not in url.query}


def bound_waits(engine: Engine, seconds: float) -> None:
    """Give up a connection whose server says nothing for `seconds` and a little more. Only psycopg can do that."""
    if engine.dialect.driver != "psycopg":
        return
    bounded = _bounded_connection(seconds + _GRACE_SECONDS)

    def connect(_dialect: Any, _record: Any, arguments: Any, named: Any) -> Any:
        return bounded.connect(*arguments, **named)

    event.listen(engine, "do_connect", connect)


def _bounded_connection(seconds: float) -> type[Connection[Any]]:
    from psycopg import Connection, OperationalError

    class BoundedConnection(Connection[Any]):
        """One that waits for each answer of the server, and not for ever."""

        def wait(self, gen: PQGen[V], interval: float = _LOOK_SECONDS, timeout: float | None = None) -> V:
            limit = seconds if timeout is None else timeout
            deadline = time.monotonic() + limit
            try:
                return super().wait(gen, interval, limit)
            except OperationalError as error:
                if error.sqlstate is not None or time.monotonic() < deadline:
                    raise
                self.pgconn.finish()  # what would come late must not be taken for the answer to something else
                raise OperationalError(f"it said nothing for {limit:g} s") from error

    return BoundedConnection
