"""What a name should be besides its alias: the version before, pins, versions kept loaded, traffic; a revision."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("aliases", sa.Column("previous_digest", sa.String(64), nullable=True))
    for name in ("pinned", "loaded"):
        op.add_column("versions", sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_index("ix_versions_digest", "versions", ["digest"])
    op.create_table(
        "traffic",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("plan", sa.Text, nullable=False),
        sa.Column("updated_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_traffic"),
    )
    state = op.create_table(
        "state",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_state"),
    )
    op.bulk_insert(state, [{"id": 1, "revision": 0}])


def downgrade() -> None:
    op.drop_table("state")
    op.drop_table("traffic")
    op.drop_index("ix_versions_digest", table_name="versions")
    for name in ("loaded", "pinned"):
        op.drop_column("versions", name)
    op.drop_column("aliases", "previous_digest")
