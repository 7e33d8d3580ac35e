"""Brings the registry's tables up to date, at start, once however many gateways start together."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from adapters.errors import RegistryError

_SCRIPTS = Path(__file__).parent / "migrations"
# Any number, as long as nothing else in the same PostgreSQL database takes the same lock.
_ADVISORY_LOCK = 0x407_5A90


def upgrade(engine: Engine) -> None:
    """Run the migrations that the database lacks, in one transaction.

    `engine` must begin its transactions as writers, so that on SQLite a second gateway waits. Raises
    RegistryError when the database was written by a newer Hotswap.
    """
    config = _config()
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        _refuse_newer(config, connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    # Alembic reads '%' in a path as the start of a variable.
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _refuse_newer(config: Config, connection: Connection) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    current = set(MigrationContext.configure(connection).get_current_heads())
    if unknown := current - known:
        raise RegistryError(
            f"The registry was written by a newer Hotswap (schema {', '.join(sorted(unknown))}). "
            "Start that version, or use another registry."
        )
