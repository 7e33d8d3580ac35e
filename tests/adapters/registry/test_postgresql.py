"""A PostgreSQL that hangs is an error of the registry within a time that can be set."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import make_url, text

from adapters.errors import RegistryUnavailableError
from adapters.registry.database import WRITES, connect
from adapters.registry.explain import explained
from adapters.registry.postgresql import connect_options
from adapters.registry.registry import Registry
from tests.adapters.registry.conftest import empty_postgres
from tests.adapters.registry.silent_postgres import silent_postgres
from tests.patience import patient


@pytest.mark.parametrize(
    ("lets_in", "said"),
    [(False, "timeout expired"), (True, "it said nothing for")],
    ids=["connecting", "asked"],
)
def test_a_server_that_says_nothing_is_given_up(lets_in: bool, said: str) -> None:
    started = time.monotonic()
    with silent_postgres(lets_in=lets_in) as server:
        with pytest.raises(RegistryUnavailableError, match="does not answer") as refused:
            Registry(server.url, timeout_seconds=0.5).open()
        assert server.connections >= 1
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)
    assert time.monotonic() - started < patient(20)  # for ever, without a limit


def test_what_the_url_says_itself_is_left_as_it_is() -> None:
    url = make_url("postgresql+psycopg://host/db?connect_timeout=3&options=-c%20geqo%3Doff")
    options = connect_options(url, 5.0)
    assert "connect_timeout" not in options
    assert "options" not in options
    assert options["tcp_user_timeout"] == 5000


def test_the_server_ends_a_statement_that_takes_too_long_and_the_next_one_is_answered() -> None:
    with empty_postgres() as url:
        engine = connect(url, timeout_seconds=0.3)
        with (
            pytest.raises(RegistryUnavailableError, match="--registry-timeout-seconds"),
            explained(),
            engine.connect() as connection,
        ):
            connection.execute(text("SELECT pg_sleep(60)"))
        with engine.connect() as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1
        engine.dispose()


def test_a_gateway_that_stops_in_the_middle_of_a_change_does_not_hold_up_the_others_for_ever() -> None:
    with empty_postgres() as url, Registry(url, timeout_seconds=0.3) as registry:
        stopped = connect(url, timeout_seconds=0.3).execution_options(**{WRITES: True})
        with stopped.connect() as connection:
            connection.execute(text("LOCK TABLE versions IN ACCESS EXCLUSIVE MODE"))
            deadline = time.monotonic() + patient(30)
            while True:
                try:
                    registry.list_versions()
                    break
                except RegistryUnavailableError:
                    assert time.monotonic() < deadline
            connection.invalidate()
        stopped.dispose()
