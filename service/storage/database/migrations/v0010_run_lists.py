"""Lists of runs: their indexes, the time of their first output, and the number of their model calls."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_BigInteger = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the columns and the indexes."""
    op.add_column("runs", sa.Column("first_output_at_ms", _BigInteger))
    op.add_column("runs", sa.Column("step", _BigInteger))
    op.create_index("runs_by_start", "runs", ["accepted_at_ms", "id"])
    op.create_index("runs_of_agent", "runs", ["agent_id", "accepted_at_ms", "id"])
    failed = sa.text("state IN ('error', 'aborted', 'interrupted')")
    op.create_index(
        "runs_failed", "runs", ["state", "accepted_at_ms", "id"], sqlite_where=failed, postgresql_where=failed
    )
