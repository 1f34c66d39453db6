"""Database operations that start runs: they acquire the lease of the session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Self

import sqlalchemy as sa

from service.core.dataclass import record
from service.storage.database.database import Operation
from service.storage.runs.finishing import restore_session
from service.storage.runs.records import AcceptedRun, RunState
from service.storage.runs.rows import to_run_row, to_webhook_rows
from service.storage.runs.statements import (
    ACCEPT_RUN,
    ACQUIRE_LEASE,
    ADD_WEBHOOK,
    BEGIN_RUN,
    LOCK_MEMBER,
    RELEASE_LEASE,
    REQUEST_LEASE,
)
from service.storage.sessions.tree import READ_HEAD, SessionHead

#: The token of the first holder of a session, which may have been stateless until then.
_FIRST_FENCE = 1


@dataclass(slots=True, eq=False)
class AcceptRun(Operation[None]):
    """Record a run that waits for its session."""

    run: AcceptedRun
    gateway_id: str

    @classmethod
    def execute(cls, connection: sa.Connection, operations: Sequence[Self]) -> Sequence[None]:
        """See `Operation`."""
        _record_accepted(connection, operations)
        return [None] * len(operations)


class AcquireFailure(Enum):
    """Reason why a session could not be acquired.

    BUSY: another run holds it or is next. EVICTED: this gateway is no longer a member. OVER: another gateway ended the
    run while it waited.
    """

    BUSY = "busy"
    EVICTED = "evicted"
    OVER = "over"


@record
class Lease:
    """The right to write in a session: the fencing token, and the session as it is then."""

    fence: int
    head: SessionHead = SessionHead()


@dataclass(slots=True, eq=False)
class BeginRun(Operation["Lease | AcquireFailure"]):
    """Acquire the run's session and record the run as running; the result is the lease or a `AcquireFailure`.

    A refused gateway is recorded as the next, and others leave the session to it unless `override_waiter` is set; its
    run is recorded as accepted, so that others can see and abort it.
    """

    run: AcceptedRun
    gateway_id: str
    at_ms: int
    override_waiter: bool = False

    @property
    def session_key(self) -> str | None:
        """See `Operation`."""
        return self.run.session_key

    @classmethod
    def execute(cls, connection: sa.Connection, operations: Sequence[Self]) -> Sequence[Lease | AcquireFailure]:
        """See `Operation`."""
        members = {
            own_id: LOCK_MEMBER.first(connection, {"own_id": own_id}) is not None
            for own_id in {one.gateway_id for one in operations}
        }
        results: dict[int, Lease | AcquireFailure] = {}
        # A fixed order, so that two gateways cannot deadlock.
        for one in sorted(operations, key=lambda one: one.run.session_key):
            results[id(one)] = one.acquire(connection) if members[one.gateway_id] else AcquireFailure.EVICTED
        begun = [one for one in operations if isinstance(results[id(one)], Lease)]
        for over in _record_beginnings(connection, begun):
            RELEASE_LEASE.execute_many(connection, [{"of_key": over.run.session_key, "of_run": over.run.id}])
            results[id(over)] = AcquireFailure.OVER
        _record_accepted(connection, [one for one in operations if results[id(one)] is AcquireFailure.BUSY])
        return [results[id(one)] for one in operations]

    def acquire(self, connection: sa.Connection) -> Lease | AcquireFailure:
        """Acquire the session lease, or record this gateway as waiting for it."""
        key = self.run.session_key
        parameters = {
            "session_key": key,
            "run_id": self.run.id,
            "gateway_id": self.gateway_id,
            "at_ms": self.at_ms,
            "override_waiter": self.override_waiter,
        }
        row = ACQUIRE_LEASE.first(connection, parameters)
        if row is not None:
            if row.fence == _FIRST_FENCE:
                restore_session(connection, key)
            # A statement of its own: the first one may have waited for the end of a turn that it does not see.
            head = READ_HEAD.first(connection, {"of_key": key})
            return Lease(row.fence, SessionHead() if head is None else SessionHead(*head))
        REQUEST_LEASE.execute_many(connection, [{"of_key": key, "own_id": self.gateway_id}])
        return AcquireFailure.BUSY


def _record_accepted(connection: sa.Connection, operations: Sequence[AcceptRun | BeginRun]) -> None:
    rows = [to_run_row(one.run, one.gateway_id, RunState.QUEUED) for one in operations]
    ACCEPT_RUN.execute_many(connection, rows)
    ADD_WEBHOOK.execute_many(connection, to_webhook_rows(one.run for one in operations if isinstance(one, AcceptRun)))


def _record_beginnings(connection: sa.Connection, operations: Sequence[BeginRun]) -> list[BeginRun]:
    """Record runs as running; return those that were ended by others in the meantime."""
    over = []
    for one in operations:
        row = {**to_run_row(one.run, one.gateway_id, RunState.RUNNING), "started_at_ms": one.at_ms}
        if BEGIN_RUN.first(connection, row) is None:
            over.append(one)
    return over
