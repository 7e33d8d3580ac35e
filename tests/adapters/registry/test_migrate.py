from __future__ import annotations

import logging
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from adapters.errors import RegistryError
from adapters.registry import migrate
from adapters.registry.database import WRITES, connect
from adapters.registry.migrate import upgrade
from adapters.registry.models import Base
from adapters.registry.registry import Registry


def _newest() -> str:
    folder = Path(migrate.__file__).parent / "migrations" / "versions"
    return max(script.name[:4] for script in folder.glob("0*.py"))


@pytest.fixture
def engine(url):
    engine = connect(url).execution_options(**{WRITES: True})
    yield engine
    engine.dispose()


def test_the_migrations_make_the_tables_of_the_models(engine):
    upgrade(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        assert context.get_current_revision() == _newest()


def test_upgrading_again_changes_nothing(engine):
    upgrade(engine)
    upgrade(engine)


def test_a_failed_migration_leaves_the_database_as_it_was(engine, monkeypatch):
    def fail(*_):
        raise RuntimeError("half-way")

    monkeypatch.setattr("alembic.operations.Operations.create_index", fail)
    with pytest.raises(RuntimeError, match="half-way"):
        upgrade(engine)
    monkeypatch.undo()
    with engine.connect() as connection:
        assert MigrationContext.configure(connection).get_current_revision() is None
        assert not connection.dialect.has_table(connection, "versions")
    upgrade(engine)


def test_a_registry_of_a_newer_hotswap_is_refused(url, engine):
    upgrade(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(RegistryError, match="newer Hotswap \\(schema 9999\\)"):
        Registry(url).open()


def test_upgrading_leaves_the_logging_of_the_process_alone(engine):
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    upgrade(engine)
    assert (root.level, list(root.handlers)) == before
