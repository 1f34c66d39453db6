"""Named keys, and whose sessions and runs are: those that exist are the administrator's."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_BigInteger = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_OWNED = sa.text("owner IS NOT NULL")
_INDEXES = {
    "sessions_of_owner": ("sessions", ["owner", "updated_at_ms"]),
    "sessions_of_owner_by_start": ("sessions", ["owner", "stateless", "created_at_ms", "session_id"]),
    "runs_of_owner": ("runs", ["owner", "accepted_at_ms", "id"]),
    "stateless_turns_of_owner": ("stateless_turns", ["owner", "ended_at_ms"]),
    "stateless_runs_of_owner": ("stateless_turns", ["owner", "run_id"]),
}


def upgrade() -> None:
    """Add the table, the columns and their indexes."""
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("old_digest", sa.Text),
        sa.Column("old_until_ms", _BigInteger),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("agents", sa.Text),
        sa.Column("models", sa.Text),
        sa.Column("created_at_ms", _BigInteger, nullable=False),
        sa.Column("expires_at_ms", _BigInteger),
        sa.Column("revoked_at_ms", _BigInteger),
        sa.Column("last_used_at_ms", _BigInteger),
        sqlite_with_rowid=False,
    )
    for table in ("sessions", "runs", "stateless_turns"):
        op.add_column(table, sa.Column("owner", sa.Text))
    for name, (table, columns) in _INDEXES.items():
        op.create_index(name, table, columns, sqlite_where=_OWNED, postgresql_where=_OWNED)
