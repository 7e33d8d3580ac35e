"""Run by Alembic for each command: works on the connection, and in the transaction, that it is handed."""

from __future__ import annotations

from alembic import context

from adapters.registry.models import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, transactional_ddl=False)
context.run_migrations()
