"""Bounded queries for session metadata and recent messages."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from service.core.dataclass import record
from service.core.messages import Message, Usage
from service.storage.database.schema import entries, sessions
from service.storage.database.stateless_views import stateless_sessions
from service.storage.message_codec import from_payload
from service.storage.runs.records import RunRecord, session_id_for, to_usage

#: Longer messages (mostly images) are omitted from overviews.
MAX_PAYLOAD_CHARACTERS = 200_000


@record
class SessionOverview:
    """Metadata of a session: times in ms since the epoch, `model` of the last turn, `usage` of all turns.

    `title` is the start of the first message. A stateless session belongs to a request without a session.
    """

    key: str
    session_id: str
    agent_id: str
    message_count: int
    created_at_ms: int
    updated_at_ms: int
    title: str | None
    model: str | None
    last_run_id: str | None
    usage: Usage
    stateless: bool


def to_new_session(run: RunRecord, title: str | None) -> SessionOverview:
    """Return the metadata of a session whose first run, `run`, has not ended."""
    return SessionOverview(
        key=run.session_key,
        session_id=session_id_for(run.id, run.session_key, run.accepted_at_ms),
        agent_id=run.agent_id,
        message_count=0,
        created_at_ms=run.accepted_at_ms,
        updated_at_ms=run.accepted_at_ms,
        title=title,
        model=None,
        last_run_id=None,
        usage=Usage(),
        stateless=False,
    )


@record
class Position:
    """A cursor in the order of creation; it stays valid when sessions are added or deleted."""

    created_at_ms: int
    session_id: str


@record
class RecentMessage:
    """A stored message at index `seq` of its session; `message` is `None` if it is too long for an overview."""

    seq: int
    role: str
    at_ms: int
    run_id: str
    message: Message | None


SessionTable = sa.Table | sa.Subquery

#: Where sessions are stored, each in one of them. Queries read one after the other, because each has its own indexes.
#: The stateless turns come first: one that is continued in the meantime is read twice, not missed.
SESSION_TABLES: tuple[SessionTable, ...] = (stateless_sessions, sessions)

READ_SESSION = sa.union_all(
    *(sa.select(table).where(table.c.key == sa.bindparam("of_key")) for table in SESSION_TABLES)
)


def list_by_use(
    table: SessionTable,
    agent_id: str | None,
    *,
    stateless: bool | None,
    search: str,
    since_ms: int,
    limit: int,
    owner: str | None = None,
) -> sa.Select[Any]:
    """Select the sessions of one agent and one owner (`None`: all) used since then whose keys contain `search`.

    Last used first. An index has the order for one agent or owner, and for `stateless` or other sessions, but not for
    all.
    """
    listed = sa.select(table)
    if agent_id is not None:
        listed = listed.where(table.c.agent_id == agent_id)
    if owner is not None:
        listed = listed.where(table.c.owner == owner)
    if stateless is not None:
        listed = listed.where(table.c.stateless.is_(stateless))
    if search:
        listed = listed.where(table.c.key.contains(search, autoescape=True))
    if since_ms:
        listed = listed.where(table.c.updated_at_ms >= since_ms)
    return listed.order_by(table.c.updated_at_ms.desc(), table.c.key).limit(limit)


def list_by_start(
    table: SessionTable,
    agent_id: str | None,
    *,
    stateless: bool,
    after: Position | None,
    limit: int,
    owner: str | None = None,
) -> sa.Select[Any]:
    """Select the stateless or the other sessions of one agent and one owner (`None`: all), newest first."""
    order = table.c.created_at_ms, table.c.session_id
    listed = sa.select(table).where(table.c.stateless.is_(stateless))
    if agent_id is not None:
        listed = listed.where(table.c.agent_id == agent_id)
    if owner is not None:
        listed = listed.where(table.c.owner == owner)
    if after is not None:
        listed = listed.where(sa.tuple_(*order) < sa.tuple_(after.created_at_ms, after.session_id))
    return listed.order_by(*(column.desc() for column in order)).limit(limit)


def by_use(session: SessionOverview) -> tuple[int, str]:
    """Return the sort key of sessions, last used first."""
    return -session.updated_at_ms, session.key


def by_start(session: SessionOverview) -> tuple[int, str]:
    """Return the sort key of sessions, oldest first."""
    return session.created_at_ms, session.session_id


#: The columns of a `RecentMessage`.
RECENT_COLUMNS: tuple[sa.ColumnElement[Any], ...] = (
    entries.c.seq,
    entries.c.role,
    entries.c.created_at_ms,
    entries.c.run_id,
    sa.case((sa.func.length(entries.c.payload) <= MAX_PAYLOAD_CHARACTERS, entries.c.payload)).label("payload"),
)


def to_overview(row: sa.Row[Any]) -> SessionOverview:
    """Convert a row of one of the session queries."""
    return SessionOverview(
        key=row.key,
        session_id=row.session_id,
        agent_id=row.agent_id,
        message_count=row.entry_count,
        created_at_ms=row.created_at_ms,
        updated_at_ms=row.updated_at_ms,
        title=row.title,
        model=row.model,
        last_run_id=row.last_run_id,
        usage=to_usage(row),
        stateless=row.stateless,
    )


def to_recent_message(row: sa.Row[Any]) -> RecentMessage:
    """Convert a row of `RECENT_COLUMNS`."""
    message = None if row.payload is None else from_payload(row.role, row.payload)
    return RecentMessage(row.seq, row.role, row.created_at_ms, row.run_id, message)
