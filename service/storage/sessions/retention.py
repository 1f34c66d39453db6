"""Which sessions and records of runs are not kept any longer, and the operations that delete them.

What is found is looked at again in the transaction that deletes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from service.config.sessions import MaintenanceConfig
from service.core.dataclass import record
from service.storage.cluster.membership import GOING_ON
from service.storage.database.database import Database, SingleOperation
from service.storage.database.schema import claims, lanes, runs, sessions
from service.storage.runs.idempotency import KEPT_MS
from service.storage.sessions.transcripts import delete_session

_PAGE = 500
_RUNS_READ = 500
_LANES_READ = 500

_COLUMNS = (sessions.c.key, sessions.c.agent_id, sessions.c.updated_at_ms, sessions.c.entry_count, sessions.c.stateless)
_AGENTS = sa.select(sessions.c.agent_id).distinct()
_SOME_RUNS = (
    sa.select(runs.c.id, runs.c.state, runs.c.accepted_at_ms, runs.c.ended_at_ms)
    .where(runs.c.id > sa.bindparam("after"))
    .order_by(runs.c.id)
    .limit(_RUNS_READ)
)
#: The sessions of runs that a caller may ask for again by its idempotency key.
_KEYED = sa.select(runs.c.session_key).select_from(claims.join(runs, runs.c.id == claims.c.run_id))

#: A lane that tells nothing: nobody holds it or waits for it, and its session has no turn.
_IDLE = (
    lanes.c.run_id.is_(None),
    lanes.c.gateway_id.is_(None),
    lanes.c.wanted_by.is_(None),
    ~sa.exists().where(sessions.c.key == lanes.c.session_key),
)
_SOME_LANES = (
    sa.select(lanes.c.session_key, sa.and_(*_IDLE).label("idle"))
    .where(lanes.c.session_key > sa.bindparam("after"))
    .order_by(lanes.c.session_key)
    .limit(_LANES_READ)
)


@record
class ExpiredSession:
    """A session that is not kept, as it was found; `reason` is for people."""

    key: str
    agent_id: str
    updated_at_ms: int
    message_count: int
    stateless: bool
    reason: str


class Expiry:
    """Finds what `config` does not keep. Every query is bounded; all methods may wait and raise `StoreError`."""

    def __init__(self, database: Database, config: MaintenanceConfig) -> None:
        self._database = database
        self._config = config

    def iter_sessions(self, now_ms: int) -> Iterator[ExpiredSession]:
        """The sessions that are too old or too many, each once, read page by page.

        Those whose answers an idempotency key still stands for are neither found nor counted.
        """
        config = self._config
        # What was last used before any key that is kept was sent need not be looked for among the keys.
        unkeyed = sa.or_(sessions.c.updated_at_ms <= now_ms - KEPT_MS, sessions.c.key.not_in(_KEYED))
        if config.stateless_after is not None:
            before_ms = now_ms - config.stateless_after * 1000
            alone = sa.and_(sessions.c.stateless.is_(True), unkeyed)
            yield from self._iter_oldest(alone, "stood alone", before_ms)
        named = sa.and_(sessions.c.stateless.is_(False), unkeyed)
        before_ms = -1
        if config.prune_after is not None:
            before_ms = now_ms - config.prune_after * 1000
            yield from self._iter_oldest(named, "not used for long", before_ms)
        if config.max_entries is not None:
            yield from self._iter_beyond(config.max_entries, named, before_ms)

    def iter_runs(self, now_ms: int) -> Iterator[Sequence[str]]:
        """The runs whose record is too old, in steps that may be empty."""
        if self._config.runs_after is None:
            return
        # A kept idempotency key needs its run.
        before_ms = now_ms - max(self._config.runs_after * 1000, KEPT_MS)
        after = ""
        while True:
            rows = self._database.fetch(_SOME_RUNS, {"after": after})
            yield [row.id for row in rows if row.state not in GOING_ON and _end_of(row) <= before_ms]
            if len(rows) < _RUNS_READ:
                return
            after = rows[-1].id

    def iter_lanes(self) -> Iterator[Sequence[str]]:
        """The lanes that nobody holds or waits for and whose sessions have no turn, in steps that may be empty."""
        after = ""
        while True:
            rows = self._database.fetch(_SOME_LANES, {"after": after})
            yield [row.session_key for row in rows if row.idle]
            if len(rows) < _LANES_READ:
                return
            after = rows[-1].session_key

    def _iter_beyond(self, most: int, which: sa.ColumnElement[bool], older_ms: int) -> Iterator[ExpiredSession]:
        """Which sessions are beyond the `most` last used of each agent, but for what was used last until `older_ms`."""
        for agent in self._database.fetch(_AGENTS, {}):
            newer = sa.and_(sessions.c.agent_id == agent.agent_id, which, sessions.c.updated_at_ms > older_ms)
            counted = sa.select(sa.func.count().label("number")).select_from(sessions).where(newer)
            excess = self._database.fetch(counted, {})[0].number - most
            oldest = self._iter_oldest(newer, f"beyond the last {most} of {agent.agent_id}")
            yield from (session for session, _ in zip(oldest, range(excess), strict=False))

    def _iter_oldest(
        self, which: sa.ColumnElement[bool], reason: str, before_ms: int | None = None
    ) -> Iterator[ExpiredSession]:
        order = sessions.c.updated_at_ms, sessions.c.key
        found = sa.select(*_COLUMNS).where(which).order_by(*order).limit(_PAGE)
        if before_ms is not None:
            found = found.where(sessions.c.updated_at_ms <= before_ms)
        page = self._database.fetch(found, {})
        while page:
            for row in page:
                yield ExpiredSession(row.key, row.agent_id, row.updated_at_ms, row.entry_count, row.stateless, reason)
            last = page[-1]
            behind = sa.tuple_(*order) > sa.tuple_(last.updated_at_ms, last.key)
            page = self._database.fetch(found.where(behind), {}) if len(page) == _PAGE else []


def _end_of(row: sa.Row[Any]) -> int:
    end: int = row.accepted_at_ms if row.ended_at_ms is None else row.ended_at_ms
    return end


@dataclass(slots=True, eq=False)
class DeleteExpired(SingleOperation[int]):
    """Delete those of some sessions that nobody used since they were found and no run holds; how many."""

    found: Sequence[ExpiredSession]

    def apply(self, connection: sa.Connection) -> int:
        """See `SingleOperation`."""
        # Always in the same order, so that two gateways never wait for one another.
        in_order = sorted(self.found, key=lambda one: one.key)
        return sum(bool(delete_session(connection, one.key, one.updated_at_ms)) for one in in_order)


@dataclass(slots=True, eq=False)
class DeleteOldRuns(SingleOperation[int]):
    """Delete the records of some runs that have ended; how many."""

    run_ids: Sequence[str]

    def apply(self, connection: sa.Connection) -> int:
        """See `SingleOperation`."""
        ended = runs.c.id.in_(self.run_ids), runs.c.state.not_in(GOING_ON)
        return connection.execute(runs.delete().where(*ended)).rowcount


@dataclass(slots=True, eq=False)
class DeleteIdleLanes(SingleOperation[None]):
    """Delete the lanes of some sessions in which nothing was ever stored, unless somebody uses them by now."""

    keys: Sequence[str]

    def apply(self, connection: sa.Connection) -> None:
        """See `SingleOperation`."""
        # Nobody is waited for: a lane that is being taken is none to delete.
        idle = sa.select(lanes.c.session_key).where(lanes.c.session_key.in_(self.keys), *_IDLE)
        held = connection.execute(idle.with_for_update(of=lanes, skip_locked=True)).scalars().all()
        connection.execute(lanes.delete().where(lanes.c.session_key.in_(held)))
