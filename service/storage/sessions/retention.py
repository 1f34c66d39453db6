"""Queries for expired sessions and run records, and the operations that delete them.

Each deletion checks again, in its own transaction, that the row has still expired.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from service.config.sessions import MaintenanceConfig
from service.core.dataclass import record
from service.storage.cluster.membership import ACTIVE_STATES
from service.storage.database.database import Database, SingleOperation
from service.storage.database.schema import approvals, claims, lanes, run_events, runs, sessions, webhooks
from service.storage.database.stateless_views import stateless_sessions
from service.storage.runs.idempotency import RETENTION_MS
from service.storage.sessions.queries import SessionTable
from service.storage.sessions.transcripts import delete_session

_SESSIONS_PER_PAGE = 500
_RUNS_PER_PAGE = 500
_LEASES_PER_PAGE = 500
_APPROVALS_PER_BATCH = 500

_COLUMNS = ("key", "agent_id", "updated_at_ms", "entry_count", "stateless")
_NEXT_AGENT = sa.select(sa.func.min(sessions.c.agent_id).label("id")).where(sessions.c.agent_id > sa.bindparam("after"))
_RUN_PAGE = (
    sa.select(runs.c.id, runs.c.state, runs.c.accepted_at_ms, runs.c.ended_at_ms)
    .where(
        runs.c.accepted_at_ms <= sa.bindparam("before_ms"),
        sa.tuple_(runs.c.accepted_at_ms, runs.c.id) > sa.tuple_(sa.bindparam("after_ms"), sa.bindparam("after_id")),
    )
    .order_by(runs.c.accepted_at_ms, runs.c.id)
    .limit(_RUNS_PER_PAGE)
)
#: A run of the session that an idempotency key can still replay.
_KEYED = sa.exists().where(runs.c.session_key == sessions.c.key, claims.c.run_id == runs.c.id)

#: An unused lease: without holder and waiter, for a session without turns.
_IDLE = (
    lanes.c.new_since_ms.is_not(None),
    lanes.c.run_id.is_(None),
    lanes.c.gateway_id.is_(None),
    lanes.c.wanted_by.is_(None),
    ~sa.exists().where(sessions.c.key == lanes.c.session_key),
)
_LEASE_PAGE = (
    sa.select(lanes.c.session_key, lanes.c.new_since_ms, sa.and_(*_IDLE).label("idle"))
    .where(
        lanes.c.new_since_ms.is_not(None),
        sa.tuple_(lanes.c.new_since_ms, lanes.c.session_key)
        > sa.tuple_(sa.bindparam("after_ms"), sa.bindparam("after_key")),
    )
    .order_by(lanes.c.new_since_ms, lanes.c.session_key)
    .limit(_LEASES_PER_PAGE)
)


@record
class ExpiredSession:
    """An expired session as it was found; `reason` is a text for display."""

    key: str
    agent_id: str
    updated_at_ms: int
    message_count: int
    stateless: bool
    reason: str


class RetentionPolicy:
    """Finds expired data according to `config`. Every query is bounded; methods may block and raise `StoreError`."""

    def __init__(self, database: Database, config: MaintenanceConfig) -> None:
        self._database = database
        self._config = config

    def iter_expired_sessions(self, now_ms: int) -> Iterator[ExpiredSession]:
        """Iterate over the sessions that are too old or too many, each once, read page by page.

        Sessions whose answers an idempotency key can still replay are neither found nor counted.
        """
        config = self._config
        # What was last used before any key that is kept was sent need not be looked for among the keys.
        unclaimed = sa.or_(sessions.c.updated_at_ms <= now_ms - RETENTION_MS, ~_KEYED)
        if config.stateless_after is not None:
            before_ms = now_ms - config.stateless_after * 1000
            alone = sa.and_(sessions.c.stateless.is_(True), unclaimed)
            yield from self._iter_oldest(stateless_sessions, sa.true(), "stateless", before_ms)
            yield from self._iter_oldest(sessions, alone, "stateless", before_ms)
        named = sa.and_(sessions.c.stateless.is_(False), unclaimed)
        before_ms = -1
        if config.prune_after is not None:
            before_ms = now_ms - config.prune_after * 1000
            yield from self._iter_oldest(sessions, named, "unused for too long", before_ms)
        if config.max_entries is not None:
            yield from self._iter_beyond(config.max_entries, named, before_ms)

    def iter_expired_runs(self, now_ms: int) -> Iterator[Sequence[str]]:
        """Iterate over batches, possibly empty, of runs whose records have expired."""
        if self._config.runs_after is None:
            return
        # A retained idempotency key needs its run.
        before_ms = now_ms - max(self._config.runs_after * 1000, RETENTION_MS)
        after = {"after_ms": -1, "after_id": ""}
        while True:
            rows = self._database.fetch(_RUN_PAGE, {"before_ms": before_ms, **after})
            yield [row.id for row in rows if row.state not in ACTIVE_STATES and _end_of(row) <= before_ms]
            if len(rows) < _RUNS_PER_PAGE:
                return
            after = {"after_ms": rows[-1].accepted_at_ms, "after_id": rows[-1].id}

    def approvals_before_ms(self, now_ms: int) -> int | None:
        """Return the time before which approvals have expired, if they do: they are kept as long as runs."""
        return None if self._config.runs_after is None else now_ms - self._config.runs_after * 1000

    def iter_idle_leases(self) -> Iterator[Sequence[str]]:
        """Iterate over batches, possibly empty, of unused leases of sessions without turns."""
        after = {"after_ms": -1, "after_key": ""}
        while True:
            rows = self._database.fetch(_LEASE_PAGE, after)
            yield [row.session_key for row in rows if row.idle]
            if len(rows) < _LEASES_PER_PAGE:
                return
            after = {"after_ms": rows[-1].new_since_ms, "after_key": rows[-1].session_key}

    def _iter_beyond(self, most: int, which: sa.ColumnElement[bool], older_ms: int) -> Iterator[ExpiredSession]:
        """Iterate over the sessions in excess of the `most` last used of each agent, used after `older_ms`."""
        for agent_id in self._iter_agents():
            newer = sa.and_(sessions.c.agent_id == agent_id, which, sessions.c.updated_at_ms > older_ms)
            counted = sa.select(sa.func.count().label("number")).select_from(sessions).where(newer)
            excess = self._database.fetch(counted, {})[0].number - most
            oldest = self._iter_oldest(sessions, newer, f"more than {most} sessions of {agent_id}")
            yield from (session for session, _ in zip(oldest, range(excess), strict=False))

    def _iter_agents(self) -> Iterator[str]:
        """Iterate over the agents that have sessions, each found by the index."""
        agent_id = ""
        while (agent_id := self._database.fetch(_NEXT_AGENT, {"after": agent_id})[0].id) is not None:
            yield agent_id

    def _iter_oldest(
        self, table: SessionTable, which: sa.ColumnElement[bool], reason: str, before_ms: int | None = None
    ) -> Iterator[ExpiredSession]:
        order = table.c.updated_at_ms, table.c.key
        found = sa.select(*(table.c[name] for name in _COLUMNS)).where(which).order_by(*order)
        found = found.limit(_SESSIONS_PER_PAGE)
        if before_ms is not None:
            found = found.where(table.c.updated_at_ms <= before_ms)
        page = self._database.fetch(found, {})
        while page:
            for row in page:
                yield ExpiredSession(row.key, row.agent_id, row.updated_at_ms, row.entry_count, row.stateless, reason)
            last = page[-1]
            behind = sa.tuple_(*order) > sa.tuple_(last.updated_at_ms, last.key)
            page = self._database.fetch(found.where(behind), {}) if len(page) == _SESSIONS_PER_PAGE else []


def _end_of(row: sa.Row[Any]) -> int:
    end: int = row.accepted_at_ms if row.ended_at_ms is None else row.ended_at_ms
    return end


@dataclass(slots=True, eq=False)
class DeleteExpired(SingleOperation[int]):
    """Delete those of `found` that were not used since and that no run holds; return their number."""

    found: Sequence[ExpiredSession]

    def apply(self, connection: sa.Connection) -> int:
        """See `SingleOperation`."""
        # A fixed order, so that two gateways cannot deadlock.
        in_order = sorted(self.found, key=lambda one: one.key)
        return sum(bool(delete_session(connection, one.key, one.updated_at_ms)) for one in in_order)


@dataclass(slots=True, eq=False)
class DeleteOldRuns(SingleOperation[int]):
    """Delete the records of ended runs; return their number."""

    run_ids: Sequence[str]

    def apply(self, connection: sa.Connection) -> int:
        """See `SingleOperation`."""
        ended = runs.c.id.in_(self.run_ids), runs.c.state.not_in(ACTIVE_STATES)
        deleted = connection.execute(runs.delete().where(*ended).returning(runs.c.id)).scalars().all()
        connection.execute(run_events.delete().where(run_events.c.run_id.in_(deleted)))
        connection.execute(webhooks.delete().where(webhooks.c.run_id.in_(deleted)))
        return len(deleted)


@dataclass(slots=True, eq=False)
class DeleteOldApprovals(SingleOperation[int]):
    """Delete a batch of approvals that were closed before `before_ms`; return their number."""

    before_ms: int

    def apply(self, connection: sa.Connection) -> int:
        """See `SingleOperation`."""
        old = sa.select(approvals.c.id).where(approvals.c.decided_at_ms <= self.before_ms).limit(_APPROVALS_PER_BATCH)
        return connection.execute(approvals.delete().where(approvals.c.id.in_(old))).rowcount


@dataclass(slots=True, eq=False)
class DeleteIdleLeases(SingleOperation[None]):
    """Delete the unused leases of sessions without turns, unless they are in use again."""

    keys: Sequence[str]

    def apply(self, connection: sa.Connection) -> None:
        """See `SingleOperation`."""
        # Locked rows are skipped: a lease that is being acquired must not be deleted.
        idle = sa.select(lanes.c.session_key).where(lanes.c.session_key.in_(self.keys), *_IDLE)
        held = connection.execute(idle.with_for_update(of=lanes, skip_locked=True)).scalars().all()
        connection.execute(lanes.delete().where(lanes.c.session_key.in_(held)))
