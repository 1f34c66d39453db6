"""Events of detached runs, and what such a run does now."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_BigInteger = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the columns and the table."""
    op.add_column("runs", sa.Column("detached", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("runs", sa.Column("tool", sa.Text))
    op.create_table(
        "run_events",
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("first", _BigInteger, primary_key=True, autoincrement=False),
        sa.Column("last", _BigInteger, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
