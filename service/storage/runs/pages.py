"""Pages of runs in the order of their acceptance, newest first.

Each run is on exactly one page, whatever happens to runs in the meantime. Every query follows an index: stateless turns
have none by time, but their run ids begin with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import sqlalchemy as sa

from service.core.dataclass import record
from service.storage.cluster.membership import IS_ACTIVE
from service.storage.database.database import Database
from service.storage.database.schema import FAILED_STATES, runs
from service.storage.database.stateless_views import stateless_runs
from service.storage.runs.records import RUN_ID_PREFIX, WITH_WAIT, RunRecord, RunState, to_record
from service.storage.sessions.keys import owner_of

_WAITS = WITH_WAIT.selected_columns.waits
_STATELESS = sa.select(stateless_runs, sa.false().label("waits"))
_FAILED = sa.text(f"runs.state IN ({FAILED_STATES})")


@record
class RunPosition:
    """A cursor in the order of acceptance; it stays valid when runs are added or deleted."""

    accepted_at_ms: int
    run_id: str


@record
class RunFilter:
    """The runs to list; `None` is no restriction."""

    agent_id: str | None = None
    session_key: str | None = None
    state: RunState | None = None
    owner: str | None = None

    def admits(self, run: RunRecord) -> bool:
        """Return True if `run` is to be listed."""
        return (
            self.agent_id in (None, run.agent_id)
            and self.session_key in (None, run.session_key)
            and self.state in (None, run.state)
            and self.owner in (None, owner_of(run.session_key))
        )


def list_runs(database: Database, which: RunFilter, after: RunPosition | None, limit: int) -> tuple[RunRecord, ...]:
    """Return at most `limit` stored runs, newest first, behind `after`. Raises `StoreError`."""
    statements = [_recorded(which, after, limit)]
    if which.state in (None, RunState.OK):
        # First, so that one that is continued in the meantime is read twice, not missed.
        statements.insert(0, _stateless(which, after, limit))
    rows = database.read(partial(_read, statements=statements))
    found = {row.id: to_record(row) for row in rows}
    return newest_first(found.values())[:limit]


def newest_first(found: Iterable[RunRecord]) -> tuple[RunRecord, ...]:
    """Sort runs as lists have them."""
    return tuple(sorted(found, key=lambda run: (run.accepted_at_ms, run.id), reverse=True))


def is_behind(run: RunRecord, position: RunPosition | None) -> bool:
    """Return True if `run` comes after the cursor `position` in the list."""
    return position is None or (run.accepted_at_ms, run.id) < (position.accepted_at_ms, position.run_id)


def _read(connection: sa.Connection, statements: list[sa.Select[Any]]) -> list[sa.Row[Any]]:
    return [row for statement in statements for row in connection.execute(statement)]


def _recorded(which: RunFilter, after: RunPosition | None, limit: int) -> sa.Select[Any]:
    order = runs.c.accepted_at_ms, runs.c.id
    found = WITH_WAIT
    if which.agent_id is not None:
        found = found.where(runs.c.agent_id == which.agent_id)
    if which.session_key is not None:
        found = found.where(runs.c.session_key == which.session_key)
    if which.owner is not None:
        found = found.where(runs.c.owner == which.owner)
    if which.state is not None:
        found = found.where(*_in_state(which.state))
    if after is not None:
        found = found.where(sa.tuple_(*order) < sa.tuple_(after.accepted_at_ms, after.run_id))
    return found.order_by(*(column.desc() for column in order)).limit(limit)


def _in_state(state: RunState) -> tuple[sa.ColumnElement[bool] | sa.TextClause, ...]:
    # The terms of the partial indexes are repeated literally, or SQLite would not use them.
    if state.is_executing:
        waits = _WAITS.element
        return IS_ACTIVE, runs.c.state == RunState.RUNNING, waits if state is RunState.WAITING else ~waits
    stored = runs.c.state == state
    return (stored,) if state is RunState.OK else (_FAILED if state.is_final else IS_ACTIVE, stored)


def _stateless(which: RunFilter, after: RunPosition | None, limit: int) -> sa.Select[Any]:
    table = stateless_runs
    found = _STATELESS
    if which.agent_id is not None:
        found = found.where(table.c.agent_id == which.agent_id)
    if which.session_key is not None:
        found = found.where(table.c.session_key == which.session_key)
    if which.owner is not None:
        found = found.where(table.c.owner == which.owner)
    if after is not None:
        found = found.where(table.c.id < _id_before(after))
    return found.order_by(table.c.id.desc()).limit(limit)


def _id_before(position: RunPosition) -> str:
    """Return the bound below which the ids of earlier stateless runs are."""
    earliest, latest = (_first_id_at(position.accepted_at_ms + ms) for ms in (0, 1))
    return min(max(position.run_id, earliest), latest)


def _first_id_at(milliseconds: int) -> str:
    return f"{RUN_ID_PREFIX}{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}"
