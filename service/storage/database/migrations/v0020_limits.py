"""Limits of keys, and what is used of limits."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_BigInteger = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the columns and the table."""
    for name in ("rpm", "tpm", "concurrent"):
        op.add_column("api_keys", sa.Column(name, _BigInteger))
    op.create_table(
        "limit_usage",
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("requests", sa.Text, nullable=False),
        sa.Column("tokens", sa.Text, nullable=False),
        sa.Column("runs", sa.Text, nullable=False),
        sa.Column("updated_at_ms", _BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("limit_usage_by_age", "limit_usage", ["updated_at_ms"])
