"""Sessions, their messages and summaries.

Creates missing tables only: databases without revision numbers have some of them already.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_BigInteger = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables."""
    existing = set(sa.inspect(op.get_bind()).get_table_names())
    if "sessions" not in existing:
        op.create_table(
            "sessions",
            sa.Column("key", sa.Text, primary_key=True),
            sa.Column("session_id", sa.Text, nullable=False, unique=True),
            sa.Column("agent_id", sa.Text, nullable=False),
            sa.Column("entry_count", _BigInteger, nullable=False),
            sa.Column("created_at_ms", _BigInteger, nullable=False),
            sa.Column("updated_at_ms", _BigInteger, nullable=False),
            sqlite_with_rowid=False,
        )
    if "entries" not in existing:
        op.create_table(
            "entries",
            sa.Column("id", _BigInteger, primary_key=True, autoincrement=True),
            sa.Column("session_key", sa.Text, sa.ForeignKey("sessions.key"), nullable=False),
            sa.Column("seq", _BigInteger, nullable=False),
            sa.Column("run_id", sa.Text, nullable=False),
            sa.Column("role", sa.Text, nullable=False),
            sa.Column("payload", sa.Text, nullable=False),
            sa.Column("model", sa.Text),
            sa.Column("input_tokens", _BigInteger),
            sa.Column("output_tokens", _BigInteger),
            sa.Column("cached_tokens", _BigInteger),
            sa.Column("created_at_ms", _BigInteger, nullable=False),
            sa.UniqueConstraint("session_key", "seq", name="entries_in_order"),
        )
    if "summaries" not in existing:
        op.create_table(
            "summaries",
            sa.Column("session_key", sa.Text, sa.ForeignKey("sessions.key"), primary_key=True),
            sa.Column("covers", _BigInteger, primary_key=True),
            sa.Column("run_id", sa.Text, nullable=False),
            sa.Column("role", sa.Text, nullable=False),
            sa.Column("payload", sa.Text, nullable=False),
            sa.Column("created_at_ms", _BigInteger, nullable=False),
            sqlite_with_rowid=False,
        )
