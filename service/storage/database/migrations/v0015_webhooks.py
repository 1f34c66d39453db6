"""Webhooks of runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_BigInteger = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "webhooks",
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("attempts", _BigInteger, nullable=False),
        sa.Column("due_at_ms", _BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("webhooks_due", "webhooks", ["due_at_ms"])
