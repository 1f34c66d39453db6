"""The one thing that the two databases spell differently and SQLAlchemy's common core leaves out: upserts."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite


def insert(connection: sa.Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT into `table` that knows ON CONFLICT, for the database of `connection`."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)
