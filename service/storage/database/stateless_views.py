"""The stateless turns as rows of `sessions` and of `runs`."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from service.storage.database.schema import runs, sessions, stateless_turns


def _view(table: sa.Table, columns: dict[str, sa.ColumnElement[Any]]) -> sa.Subquery:
    """Select the stateless turns as rows of `table`: `columns`, and those of the same name."""
    chosen = {
        column.name: columns.get(column.name, stateless_turns.c.get(column.name, sa.cast(sa.null(), column.type)))
        for column in table.c
    }
    return sa.select(*(chosen[name].label(name) for name in chosen)).subquery(f"stateless_{table.name}")


stateless_sessions = _view(
    sessions,
    {
        "key": stateless_turns.c.session_key,
        "created_at_ms": stateless_turns.c.ended_at_ms,
        "updated_at_ms": stateless_turns.c.ended_at_ms,
        "last_run_id": stateless_turns.c.run_id,
        "stateless": sa.true(),
        "resends": sa.false(),
        "branched": sa.false(),
    },
)
stateless_runs = _view(
    runs,
    {
        "id": stateless_turns.c.run_id,
        "state": sa.literal_column("'ok'", sa.Text),
        "started_at_ms": stateless_turns.c.accepted_at_ms,
        "abort_requested": sa.false(),
        "detached": sa.false(),
        "followed": sa.false(),
    },
)
