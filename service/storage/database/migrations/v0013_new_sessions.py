"""Leases of sessions without turns, which pruning looks for, and indexes for what it deletes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_BigInteger = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the column, fill it and add the indexes."""
    op.add_column("lanes", sa.Column("new_since_ms", _BigInteger))
    op.execute("UPDATE lanes SET new_since_ms = 0 WHERE session_key NOT IN (SELECT key FROM sessions)")
    _add_index("lanes_new", "lanes", ["new_since_ms", "session_key"])
    _add_index("lanes_wanted", "lanes", ["wanted_by"])
    _add_index("approvals_by_decision", "approvals", ["decided_at_ms"])


def _add_index(name: str, table: str, columns: list[str]) -> None:
    is_set = sa.text(f"{columns[0]} IS NOT NULL")
    op.create_index(name, table, columns, sqlite_where=is_set, postgresql_where=is_set)
