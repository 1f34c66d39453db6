"""Digest of the conversation before a run's call of the caller's functions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; earlier runs have no digest and are not restored."""
    op.add_column("runs", sa.Column("asked_after", sa.Text))
