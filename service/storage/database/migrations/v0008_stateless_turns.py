"""Stateless turns, one row each."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_BigInteger = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the table; the rows of earlier stateless sessions stay where they are until they expire."""
    op.create_table(
        "stateless_turns",
        sa.Column("id", _BigInteger, primary_key=True),
        sa.Column("session_key", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("agent_id", sa.Text, nullable=False),
        sa.Column("gateway_id", sa.Text, nullable=False),
        sa.Column("door", sa.Text, nullable=False),
        sa.Column("accepted_at_ms", _BigInteger, nullable=False),
        sa.Column("ended_at_ms", _BigInteger, nullable=False),
        sa.Column("title", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("stop_reason", sa.Text),
        sa.Column("entry_count", _BigInteger, nullable=False),
        sa.Column("reply_count", _BigInteger, nullable=False),
        sa.Column("input_tokens", _BigInteger, nullable=False),
        sa.Column("output_tokens", _BigInteger, nullable=False),
        sa.Column("cached_tokens", _BigInteger, nullable=False),
        sa.Column("messages", sa.Text, nullable=False),
    )
    op.create_index("stateless_turns_by_key", "stateless_turns", ["session_key"], unique=True)
    op.create_index("stateless_turns_by_run", "stateless_turns", ["run_id"], unique=True)
    op.create_index("stateless_turns_by_age", "stateless_turns", ["ended_at_ms"])
    op.create_index("stateless_turns_of_agent", "stateless_turns", ["agent_id", "ended_at_ms"])
