"""Failed logins by client address."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_BigInteger = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "login_failures",
        sa.Column("address", sa.Text, primary_key=True),
        sa.Column("failed_at_ms", sa.Text, nullable=False),
        sa.Column("locked_until_ms", _BigInteger, nullable=False),
        sa.Column("last_at_ms", _BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("login_failures_by_age", "login_failures", ["last_at_ms"])
