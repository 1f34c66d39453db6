"""What can be told of sessions without reading them whole; every query is bounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from service.messages import Message, Usage
from service.sessions.payloads import from_payload
from service.sessions.schema import entries, sessions

#: Longer messages (pictures, mostly) are not read for an overview.
MAX_PAYLOAD_CHARACTERS = 200_000


@dataclass(frozen=True, slots=True)
class SessionOverview:
    """A session as a whole: times in ms since the epoch, `model` the last that answered, `usage` of all its turns."""

    key: str
    session_id: str
    agent_id: str
    message_count: int
    created_at_ms: int
    updated_at_ms: int
    model: str | None
    usage: Usage


@dataclass(frozen=True, slots=True)
class RecentMessage:
    """One stored message; `message` is `None` where it is too long to be read here."""

    role: str
    at_ms: int
    message: Message | None


def _overview(chosen: sa.Select[Any]) -> sa.Select[Any]:
    # The sums are made for the chosen rows only, so the choice is a query of its own.
    base = chosen.order_by(sessions.c.updated_at_ms.desc(), sessions.c.key).limit(sa.bindparam("most")).subquery()
    model = (
        sa.select(entries.c.model)
        .where(entries.c.session_key == base.c.key, entries.c.model.is_not(None))
        .order_by(entries.c.seq.desc())
        .limit(1)
    )

    def total(column: sa.Column[Any]) -> sa.ScalarSelect[Any]:
        summed = sa.func.coalesce(sa.func.sum(column), 0)
        return sa.select(summed).where(entries.c.session_key == base.c.key).scalar_subquery()

    return sa.select(
        base,
        model.scalar_subquery().label("model"),
        total(entries.c.input_tokens).label("input_tokens"),
        total(entries.c.output_tokens).label("output_tokens"),
        total(entries.c.cached_tokens).label("cached_tokens"),
    ).order_by(base.c.updated_at_ms.desc(), base.c.key)


READ_SESSION = _overview(sa.select(sessions).where(sessions.c.key == sa.bindparam("of_key")))
LIST_SESSIONS = _overview(sa.select(sessions))
LIST_SESSIONS_OF_AGENT = _overview(sa.select(sessions).where(sessions.c.agent_id == sa.bindparam("of_agent")))

READ_RECENT = (
    sa.select(
        entries.c.role,
        entries.c.created_at_ms,
        sa.case((sa.func.length(entries.c.payload) <= MAX_PAYLOAD_CHARACTERS, entries.c.payload)).label("payload"),
    )
    .where(entries.c.session_key == sa.bindparam("of_key"))
    .order_by(entries.c.seq.desc())
    .limit(sa.bindparam("most"))
)


def to_overview(row: sa.Row[Any]) -> SessionOverview:
    """A row of one of the session queries."""
    return SessionOverview(
        key=row.key,
        session_id=row.session_id,
        agent_id=row.agent_id,
        message_count=row.entry_count,
        created_at_ms=row.created_at_ms,
        updated_at_ms=row.updated_at_ms,
        model=row.model,
        usage=Usage(row.input_tokens, row.output_tokens, row.cached_tokens),
    )


def to_recent_message(row: sa.Row[Any]) -> RecentMessage:
    """A row of `READ_RECENT`."""
    message = None if row.payload is None else from_payload(row.role, row.payload)
    return RecentMessage(row.role, row.created_at_ms, message)
