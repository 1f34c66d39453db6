"""Estimates of the cost of calls that were cut off, for budgets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

_BigInteger = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the column."""
    op.add_column("daily_usage", sa.Column("estimate_nano", _BigInteger, nullable=False, server_default="0"))
