"""Of a run that asks its caller, what the conversation was that it asks after."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; runs from before are not recalled."""
    op.add_column("runs", sa.Column("asked_after", sa.Text))
