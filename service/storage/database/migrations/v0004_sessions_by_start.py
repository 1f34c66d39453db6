"""Indexes for listing sessions by creation time, of all agents and of each."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the indexes."""
    op.create_index("sessions_by_start", "sessions", ["stateless", "created_at_ms", "session_id"])
    op.create_index("sessions_of_agent_by_start", "sessions", ["agent_id", "stateless", "created_at_ms", "session_id"])
