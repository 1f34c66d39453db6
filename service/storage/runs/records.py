"""What is recorded of a run: when it came and ended, through which door, and what became of it.

What was said in it stands in its session's transcript and nowhere else.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import sqlalchemy as sa

from service.core.dataclass import record
from service.core.messages import Message, Usage
from service.storage.cluster.membership import GOING_ON
from service.storage.database.database import Database, SingleOperation
from service.storage.database.notify import gateway_topic, tell_change
from service.storage.database.schema import runs


class RunState(StrEnum):
    """Where a run is. `accepted` waits for its session or for room; `interrupted` is what a dead gateway leaves."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    OK = "ok"
    ERROR = "error"
    ABORTED = "aborted"
    INTERRUPTED = "interrupted"

    @property
    def is_final(self) -> bool:
        """Whether nothing follows."""
        return self not in (RunState.ACCEPTED, RunState.RUNNING)


@record
class NewRun:
    """A run that begins; times in ms since the epoch.

    A stateless one has a session to itself; `claimed` says that an idempotency key is kept for it.
    """

    id: str
    session_key: str
    agent_id: str
    door: str
    accepted_at_ms: int
    stateless: bool
    claimed: bool = False


@record
class RunOutcome:
    """How a run ended.

    `messages` is what it adds to its session (nothing if it failed), the last `reply_count` of them its own. `summary`
    stands for all of the session but its last `kept` messages from now on. `asked_call_id` is the first call that a
    stateless run asks of its caller after steps of its own, or with data of its provider: a follow-up finds them by it,
    if the conversation before them has the digest `asked_after` (`ConversationDigest`).
    """

    state: RunState
    usage: Usage = Usage()
    model: str | None = None
    stop_reason: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    messages: tuple[Message, ...] = ()
    reply_count: int = 0
    summary: Message | None = None
    kept: int = 0
    asked_call_id: str | None = None
    asked_after: str | None = None


@record
class RunRecord:
    """A run as it is recorded; times in ms since the epoch, `gateway_id` the gateway that executes it."""

    id: str
    session_key: str
    agent_id: str
    gateway_id: str
    door: str
    state: RunState
    accepted_at_ms: int
    started_at_ms: int | None
    ended_at_ms: int | None
    model: str | None
    stop_reason: str | None
    reply_count: int
    usage: Usage
    error_code: str | None
    error_message: str | None
    asked_after: str | None = None

    @classmethod
    def of(cls, run: NewRun, gateway_id: str, state: RunState) -> Self:
        """A run that waits or goes on, before anything is recorded of it."""
        return cls(
            id=run.id,
            session_key=run.session_key,
            agent_id=run.agent_id,
            gateway_id=gateway_id,
            door=run.door,
            state=state,
            accepted_at_ms=run.accepted_at_ms,
            started_at_ms=run.accepted_at_ms if state is RunState.RUNNING else None,
            ended_at_ms=None,
            model=None,
            stop_reason=None,
            reply_count=0,
            usage=Usage(),
            error_code=None,
            error_message=None,
        )


_BY_ID = sa.select(runs).where(runs.c.id == sa.bindparam("run_id"))
_GOING_ON_IN = (
    sa.select(runs)
    .where(runs.c.session_key == sa.bindparam("of_key"), runs.c.state.in_(GOING_ON))
    .order_by(runs.c.accepted_at_ms, runs.c.id)
)
_ASKING = (
    sa.select(runs)
    .where(
        runs.c.asked_call_id.in_(sa.bindparam("call_ids", expanding=True)),
        runs.c.agent_id == sa.bindparam("of_agent"),
    )
    .order_by(runs.c.accepted_at_ms, runs.c.id)
)
_FAILED_IN = sa.select(runs.c.id, runs.c.error_code).where(
    runs.c.session_key == sa.bindparam("of_key"), runs.c.error_code.is_not(None)
)
_TO_ABORT = sa.select(runs.c.id).where(
    runs.c.gateway_id == sa.bindparam("of_gateway"), runs.c.state.in_(GOING_ON), runs.c.abort_requested
)


class RunRecords:
    """The runs of all gateways that share a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, run_id: str) -> RunRecord | None:
        """The run, `None` if nothing is recorded of it. Raises `StoreError`."""
        rows = self._database.fetch(_BY_ID, {"run_id": run_id})
        return _to_record(rows[0]) if rows else None

    def find_asking(self, call_ids: Collection[str], agent_id: str) -> dict[str, RunRecord]:
        """By the id of a call: the agent's last run that asked it of its caller, who did not see all that led to it.

        Raises `StoreError`.
        """
        storable = [call_id for call_id in call_ids if "\0" not in call_id]  # PostgreSQL refuses to compare the others
        rows = self._database.fetch(_ASKING, {"call_ids": storable, "of_agent": agent_id})
        return {row.asked_call_id: _to_record(row) for row in rows}

    def list_going_on(self, session_key: str) -> tuple[RunRecord, ...]:
        """The runs that wait or go on in a session, the oldest first. Raises `StoreError`."""
        return tuple(map(_to_record, self._database.fetch(_GOING_ON_IN, {"of_key": session_key})))

    def list_failures(self, session_key: str) -> dict[str, str]:
        """The error codes of the recorded runs of a session that failed or were cut, by run. Raises `StoreError`."""
        return {row.id: row.error_code for row in self._database.fetch(_FAILED_IN, {"of_key": session_key})}

    def request_abort(self, run_id: str) -> bool:
        """Ask whichever gateway executes the run to end it; whether it was still to end. Raises `StoreError`."""
        return self._database.write(_RequestAbort(run_id))

    def list_to_abort(self, gateway_id: str) -> tuple[str, ...]:
        """The runs of a gateway that somebody asked to end. Raises `StoreError`."""
        return tuple(row.id for row in self._database.fetch(_TO_ABORT, {"of_gateway": gateway_id}))


@dataclass(slots=True, eq=False)
class _RequestAbort(SingleOperation[bool]):
    run_id: str

    def apply(self, connection: sa.Connection) -> bool:
        wanted = runs.c.id == self.run_id, runs.c.state.in_(GOING_ON)
        gateway_id = connection.execute(sa.select(runs.c.gateway_id).where(*wanted)).scalar_one_or_none()
        if gateway_id is None:
            return False
        connection.execute(runs.update().where(*wanted).values(abort_requested=True))
        tell_change(connection, gateway_topic(gateway_id))
        return True


def _to_record(row: sa.Row[Any]) -> RunRecord:
    return RunRecord(
        id=row.id,
        session_key=row.session_key,
        agent_id=row.agent_id,
        gateway_id=row.gateway_id,
        door=row.door,
        state=RunState(row.state),
        accepted_at_ms=row.accepted_at_ms,
        started_at_ms=row.started_at_ms,
        ended_at_ms=row.ended_at_ms,
        model=row.model,
        stop_reason=row.stop_reason,
        reply_count=row.reply_count,
        usage=Usage(row.input_tokens, row.output_tokens, row.cached_tokens),
        error_code=row.error_code,
        error_message=row.error_message,
        asked_after=row.asked_after,
    )
