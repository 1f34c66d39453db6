"""Index of the idempotency keys by their runs, so that deleting a session does not read all keys."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    op.create_index("claims_of_run", "claims", ["run_id"])
