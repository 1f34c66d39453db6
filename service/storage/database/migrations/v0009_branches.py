"""Branches of sessions, and digests of the conversations that their messages end.

Earlier sessions have one branch. Their messages have no digests: those are computed when a client resends them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_BigInteger = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the table, the columns and the index."""
    op.create_table(
        "branches",
        sa.Column("session_key", sa.Text, sa.ForeignKey("sessions.key"), primary_key=True),
        sa.Column("first_seq", _BigInteger, primary_key=True, autoincrement=False),
        sa.Column("parent_seq", _BigInteger),
        sqlite_with_rowid=False,
    )
    op.add_column("sessions", sa.Column("resends", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("sessions", sa.Column("branched", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("entries", sa.Column("digest", sa.Text))
    has_digest = sa.text("digest IS NOT NULL")
    op.create_index(
        "entries_by_digest",
        "entries",
        ["session_key", "digest"],
        sqlite_where=has_digest,
        postgresql_where=has_digest,
    )
