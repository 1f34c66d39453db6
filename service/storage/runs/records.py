"""Run records: times, state, API and outcome of each run.

The messages of a run are stored only in its session's transcript.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from service.core.dataclass import record
from service.core.ids import uuid_of
from service.core.messages import Message, Usage
from service.core.usage import ModelCall
from service.storage.cluster.membership import ACTIVE_STATES, IS_ACTIVE, PENDING
from service.storage.database.database import Database, SingleOperation
from service.storage.database.notify import gateway_topic, notify_change
from service.storage.database.schema import approvals, lanes, runs, sessions
from service.storage.database.stateless_views import stateless_runs
from service.storage.runs.events import EventBatch

#: The beginning of the ids that gateways give; a version 7 UUID of the time of acceptance follows.
RUN_ID_PREFIX = "chatcmpl_"


class RunState(StrEnum):
    """State of a run. `QUEUED` waits for its session or for capacity, the gateway of an `INTERRUPTED` one died.

    `WAITING` is a running one with a pending approval, and stored as `running`. `QUEUED` is stored as "accepted".
    """

    QUEUED = "accepted"
    RUNNING = "running"
    WAITING = "waiting"
    OK = "ok"
    ERROR = "error"
    ABORTED = "aborted"
    INTERRUPTED = "interrupted"

    @property
    def is_final(self) -> bool:
        """True if the run has ended."""
        return self not in (RunState.QUEUED, RunState.RUNNING, RunState.WAITING)

    @property
    def is_executing(self) -> bool:
        """True if the run has begun and not ended."""
        return self in (RunState.RUNNING, RunState.WAITING)


class Protocol(StrEnum):
    """The protocol of a run's request; `local` is a run of the command line without a gateway."""

    HTTP = "http"
    WEBSOCKET = "websocket"
    LOCAL = "local"

    @classmethod
    def _missing_(cls, value: object) -> Protocol | None:
        return cls.WEBSOCKET if value == "rpc" else None  # in databases of version 0.1


@record
class Webhook:
    """The URL that the end of a run is sent to, and the secret that signs it."""

    url: str
    secret: str


@record
class AcceptedRun:
    """A run to start; times in ms since the epoch.

    A stateless run has its own session. `claimed`: it holds an idempotency key. `detached`: it is not bound to its
    request, and recorded whatever becomes of it. `metadata` is JSON of its caller, `webhook` receives its end.
    `response` is JSON of what its response repeats of the request, if that is stored. Its usage counts for
    `account` (`Principal.account`) and for `user`, whom its caller names.
    """

    id: str
    session_key: str
    agent_id: str
    protocol: Protocol
    accepted_at_ms: int
    stateless: bool
    claimed: bool = False
    detached: bool = False
    metadata: str | None = None
    webhook: Webhook | None = None
    response: str | None = None
    account: str = ""
    user: str | None = None

    @property
    def is_recorded_early(self) -> bool:
        """True if the run is recorded when it is accepted."""
        return self.claimed or self.detached

    @property
    def new_session_id(self) -> str:
        """The id of the session if this run is the first to store a turn in it."""
        return session_id_for(self.id, self.session_key, self.accepted_at_ms)


def session_id_for(run_id: str, session_key: str, accepted_at_ms: int) -> str:
    """Return the id of a session that begins with a run, which is thereby known while the run goes on."""
    return uuid_of(accepted_at_ms, f"{run_id} {session_key}")


@record
class RunOutcome:
    """Outcome of a run.

    `messages` are added to the session (none if the run failed); the last `reply_count` of them are its output.
    `summary` replaces all but the last `kept` messages of the session. `asked_call_id` is the first call that a
    stateless run makes of the caller's functions after hidden steps or with provider data: a follow-up finds the run by
    it, if the conversation before has the digest `asked_after` (`ConversationDigest`).

    The messages follow message `parent` of the session, `None` for the latest one; `digests` are their digests.
    `events` are those of a detached run that are not stored yet, or the reasoning that a repetition shows. `resends` is
    set if the request shows whether its client sends the whole conversation each time. `calls` are those of
    its models.
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
    parent: int | None = None
    digests: tuple[str | None, ...] = ()
    resends: bool | None = None
    started_at_ms: int | None = None
    first_output_at_ms: int | None = None
    step: int | None = None
    events: tuple[EventBatch, ...] = ()
    calls: Sequence[ModelCall] = ()


@record
class RunRecord:
    """The record of a run, stored or as it is; times in ms since the epoch, `gateway_id` the executing gateway.

    `step` is the number of its latest model call, `tool` the tool that runs now; `None` if not known.
    """

    id: str
    session_key: str
    agent_id: str
    gateway_id: str
    protocol: Protocol
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
    first_output_at_ms: int | None = None
    step: int | None = None
    tool: str | None = None
    metadata: str | None = None
    response: str | None = None
    detached: bool = False
    followed: bool = False


#: The stored runs, each with `waits`: whether an approval of it is pending.
WITH_WAIT = sa.select(
    runs, sa.exists().where(approvals.c.run_id == runs.c.id, approvals.c.state == PENDING).label("waits")
)
_BY_ID = sa.union_all(
    WITH_WAIT.where(runs.c.id == sa.bindparam("run_id")),
    sa.select(stateless_runs, sa.false().label("waits")).where(stateless_runs.c.id == sa.bindparam("run_id")),
)
_ACTIVE_IN_SESSION = WITH_WAIT.where(runs.c.session_key == sa.bindparam("of_key"), IS_ACTIVE).order_by(
    runs.c.accepted_at_ms, runs.c.id
)
_IN_NEW_SESSIONS = WITH_WAIT.where(
    IS_ACTIVE,
    sa.exists().where(lanes.c.session_key == runs.c.session_key),  # a run without a session has no lease
    ~sa.exists().where(sessions.c.key == runs.c.session_key),
)  # not ordered, or SQLite walks all runs by an index of that order
_ASKING = WITH_WAIT.where(
    runs.c.asked_call_id.in_(sa.bindparam("call_ids", expanding=True)),
    runs.c.agent_id == sa.bindparam("of_agent"),
).order_by(runs.c.accepted_at_ms, runs.c.id)
_FAILED_IN_SESSION = sa.select(runs.c.id, runs.c.error_code).where(
    runs.c.session_key == sa.bindparam("of_key"), runs.c.error_code.is_not(None)
)
_REQUESTED = sa.select(runs.c.id, runs.c.abort_requested, runs.c.followed).where(
    runs.c.gateway_id == sa.bindparam("of_gateway"), IS_ACTIVE, sa.or_(runs.c.abort_requested, runs.c.followed)
)


@record
class RunRequests:
    """Requests of other gateways about the runs of one: the ids of those to end, and of those whose events to store."""

    to_abort: tuple[str, ...]
    followed: tuple[str, ...]


class RunRecords:
    """Run records of all gateways that share a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, run_id: str) -> RunRecord | None:
        """Return the record of a run, if any. Raises `StoreError`."""
        rows = self._database.fetch(_BY_ID, {"run_id": run_id})
        return to_record(rows[0]) if rows else None

    def find_asking(self, call_ids: Collection[str], agent_id: str, owner: str | None = None) -> dict[str, RunRecord]:
        """Map call ids to the agent's last run for `owner` that made the call after steps hidden from the caller.

        Raises `StoreError`.
        """
        storable = [call_id for call_id in call_ids if "\0" not in call_id]  # PostgreSQL rejects NUL in comparisons
        rows = self._database.fetch(_ASKING, {"call_ids": storable, "of_agent": agent_id})
        return {row.asked_call_id: to_record(row) for row in rows if row.owner == owner}

    def list_active(self, session_key: str) -> tuple[RunRecord, ...]:
        """Return the queued and running runs of a session, oldest first. Raises `StoreError`."""
        return tuple(map(to_record, self._database.fetch(_ACTIVE_IN_SESSION, {"of_key": session_key})))

    def list_in_new_sessions(self) -> tuple[RunRecord, ...]:
        """Return the queued and running runs of sessions without turns, oldest first. Raises `StoreError`."""
        found = map(to_record, self._database.fetch(_IN_NEW_SESSIONS, {}))
        return tuple(sorted(found, key=lambda run: (run.accepted_at_ms, run.id)))

    def list_failures(self, session_key: str) -> dict[str, str]:
        """Return the error codes of the failed or truncated runs of a session, by run id. Raises `StoreError`."""
        return {row.id: row.error_code for row in self._database.fetch(_FAILED_IN_SESSION, {"of_key": session_key})}

    def request_abort(self, run_id: str) -> bool:
        """Request the abort of a run from its gateway; returns whether it was active. Raises `StoreError`."""
        return self._database.write(_Request(run_id, "abort_requested"))

    def request_events(self, run_id: str) -> bool:
        """Request that the gateway of a run stores its events; returns whether it was active. Raises `StoreError`."""
        return self._database.write(_Request(run_id, "followed"))

    def list_requests(self, gateway_id: str) -> RunRequests:
        """Return what was requested of the active runs of a gateway. Raises `StoreError`."""
        rows = self._database.fetch(_REQUESTED, {"of_gateway": gateway_id})
        return RunRequests(
            to_abort=tuple(row.id for row in rows if row.abort_requested),
            followed=tuple(row.id for row in rows if row.followed),
        )


@dataclass(slots=True, eq=False)
class _Request(SingleOperation[bool]):
    run_id: str
    column: str

    def apply(self, connection: sa.Connection) -> bool:
        wanted = runs.c.id == self.run_id, IS_ACTIVE
        gateway_id = connection.execute(sa.select(runs.c.gateway_id).where(*wanted)).scalar_one_or_none()
        if gateway_id is None:
            return False
        connection.execute(runs.update().where(*wanted).values({self.column: True}))
        notify_change(connection, gateway_topic(gateway_id))
        return True


def to_usage(row: sa.Row[Any], reasoning_tokens: int | None = None) -> Usage:
    """Return the usage of a row of runs or sessions."""
    counts = row.input_tokens, row.output_tokens, row.cached_tokens
    return Usage(*counts, reasoning_tokens, cost_nano=row.cost_nano)


def to_record(row: sa.Row[Any]) -> RunRecord:
    """Convert a row of `WITH_WAIT`."""
    return RunRecord(
        id=row.id,
        session_key=row.session_key,
        agent_id=row.agent_id,
        gateway_id=row.gateway_id,
        protocol=Protocol(row.door),
        state=RunState.WAITING if row.waits and row.state == RunState.RUNNING else RunState(row.state),
        accepted_at_ms=row.accepted_at_ms,
        started_at_ms=row.started_at_ms,
        ended_at_ms=row.ended_at_ms,
        model=row.model,
        stop_reason=row.stop_reason,
        reply_count=row.reply_count,
        usage=to_usage(row, row.reasoning_tokens),
        error_code=row.error_code,
        error_message=row.error_message,
        asked_after=row.asked_after,
        first_output_at_ms=row.first_output_at_ms,
        step=row.step,
        metadata=row.metadata,
        response=row.response,
        detached=row.detached,
        tool=row.tool if row.state in ACTIVE_STATES else None,
        followed=bool(row.followed),
    )
