"""The cost of runs, and daily totals of usage. They begin empty: the prices of earlier runs are not known."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_BigInteger = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_KEY = ["day", "account", "user_name", "agent_id", "model"]
_COUNTS = (
    *("runs", "model_calls", "uncosted_calls", "input_tokens", "cached_tokens", "cache_write_tokens"),
    *("output_tokens", "reasoning_tokens", "cost_nano"),
)


def upgrade() -> None:
    """Add the columns and the table."""
    for table in ("sessions", "runs", "stateless_turns"):
        op.add_column(table, sa.Column("cost_nano", _BigInteger))
    op.create_table(
        "daily_usage",
        sa.Column("id", _BigInteger, primary_key=True),
        sa.Column("day", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in _KEY[1:]),
        *(sa.Column(name, _BigInteger, nullable=False, server_default="0") for name in _COUNTS),
    )
    op.create_index("daily_usage_of_key", "daily_usage", ["account", "day"])
    op.create_index("daily_usage_by_day", "daily_usage", _KEY, unique=True)
