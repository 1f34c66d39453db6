"""Store whole sessions that come from elsewhere, all of them or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from service.core.dataclass import record
from service.core.messages import Message, Usage
from service.storage.cluster.membership import NO_GATEWAY
from service.storage.database.database import SingleOperation
from service.storage.database.errors import OperationRefusedError
from service.storage.database.schema import branches, entries, runs, sessions, summaries
from service.storage.message_codec import to_payload
from service.storage.runs.finishing import restore_session
from service.storage.runs.records import Protocol, RunState
from service.storage.sessions.keys import owner_of
from service.storage.sessions.transcripts import delete_session
from service.storage.sessions.tree import ROOT

_ABORTED = "run_aborted"


@record
class ImportedMessage:
    """A message, the one it follows (`ROOT`: none), and on the last of a turn its model and usage."""

    message: Message
    parent: int
    run_id: str
    at_ms: int
    model: str | None = None
    usage: Usage | None = None
    run_error: str | None = None


@record
class ImportedSummary:
    """A summary of the messages before number `covers`."""

    message: Message
    covers: int
    run_id: str
    at_ms: int


@dataclass(slots=True, eq=False)
class ImportedSession:
    """A session to store; `line` is where it begins in its file, `notes` are what was left out of it, for people.

    `least_messages` is how many messages its file says that it has.
    """

    line: int
    key: str
    session_id: str
    agent_id: str
    created_at_ms: int
    updated_at_ms: int
    title: str | None
    model: str | None
    last_run_id: str | None
    usage: Usage
    stateless: bool = False
    least_messages: int = 0
    messages: list[ImportedMessage] = field(default_factory=list)
    summaries: list[ImportedSummary] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def fault(self) -> str | None:
        """Return what keeps it from being stored, if anything does."""
        if len(self.messages) < self.least_messages:  # there are more if it was exported while it was used
            return f"the file has {len(self.messages)} of the session's {self.least_messages} messages; it was cut"
        for seq, one in enumerate(self.messages):
            if not ROOT <= one.parent < seq:
                return f"message {seq} follows message {one.parent}, which does not come before it"
        covered = next((one.covers for one in self.summaries if not 0 < one.covers <= len(self.messages)), None)
        if covered is not None:
            return f"a summary covers {covered} of {len(self.messages)} messages"
        return None if self.messages else "it has no messages"


class ImportConflictError(OperationRefusedError):
    """A session cannot be stored; the text says why. Nothing was."""


@dataclass(slots=True, eq=False)
class ImportSessions(SingleOperation[int]):
    """Store `found` and return how many messages they have. With `replaces`, sessions with their keys are deleted.

    Raises `StoreError`, and `ImportConflictError` if a session is in the way.
    """

    found: Sequence[ImportedSession]
    replaces: bool
    new_id: Any

    @property
    def session_key(self) -> str | None:
        """See `Operation`."""
        return None

    def apply(self, connection: sa.Connection) -> int:
        """See `SingleOperation`."""
        for session in self.found:
            session_id = self._make_room(connection, session)
            connection.execute(sessions.insert().values(_session_row(session, session_id)))
            connection.execute(entries.insert(), [*_entry_rows(session)])
            for table, rows in ((branches, [*_branch_rows(session)]), (summaries, [*_summary_rows(session)])):
                if rows:
                    connection.execute(table.insert(), rows)
            for run in _failed_runs(session):
                if connection.execute(sa.select(runs.c.id).where(runs.c.id == run["id"])).first() is not None:
                    raise ImportConflictError(f"line {session.line}: another session has the run {run['id']}")
                connection.execute(runs.insert().values(run))
        return sum(len(session.messages) for session in self.found)

    def _make_room(self, connection: sa.Connection, session: ImportedSession) -> str:
        """Return the id for `session`: a replaced one's is not used again, as its messages may be in memory."""
        restore_session(connection, session.key)
        place = f"line {session.line}: the session"
        taken = sa.select(sessions.c.key).where(sessions.c.session_id == session.session_id)
        owner_key = connection.execute(taken).scalar()
        if connection.execute(sa.select(sessions.c.key).where(sessions.c.key == session.key)).first() is not None:
            if not self.replaces:
                raise ImportConflictError(f"{place} {session.key} exists; --replace deletes it")
            if delete_session(connection, session.key) is None:
                raise ImportConflictError(f"{place} {session.key} has an active run")
        if owner_key is not None and owner_key != session.key:
            raise ImportConflictError(f"{place} {owner_key} has the same id")
        return session.session_id if owner_key is None else str(self.new_id())


def _session_row(session: ImportedSession, session_id: str) -> dict[str, Any]:
    usage = session.usage
    return {
        "key": session.key,
        "session_id": session_id,
        "agent_id": session.agent_id,
        "entry_count": len(session.messages),
        "created_at_ms": session.created_at_ms,
        "updated_at_ms": session.updated_at_ms,
        "title": session.title,
        "model": session.model,
        "last_run_id": session.last_run_id,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_tokens": usage.cached_tokens,
        "cost_nano": usage.cost_nano,
        "stateless": session.stateless,
        "branched": any(one.parent != seq - 1 for seq, one in enumerate(session.messages)),
        "owner": owner_of(session.key),
    }


def _entry_rows(session: ImportedSession) -> Iterator[Mapping[str, Any]]:
    for seq, one in enumerate(session.messages):
        yield {
            "session_key": session.key,
            "seq": seq,
            "run_id": one.run_id,
            "role": one.message.role.value,
            "payload": to_payload(one.message),
            "model": one.model,
            "input_tokens": one.usage and one.usage.input_tokens,
            "output_tokens": one.usage and one.usage.output_tokens,
            "cached_tokens": one.usage and one.usage.cached_tokens,
            "created_at_ms": one.at_ms,
        }


def _branch_rows(session: ImportedSession) -> Iterator[Mapping[str, Any]]:
    for seq, one in enumerate(session.messages):
        if one.parent != seq - 1:
            parent = None if one.parent == ROOT else one.parent
            yield {"session_key": session.key, "first_seq": seq, "parent_seq": parent}


def _summary_rows(session: ImportedSession) -> Iterator[Mapping[str, Any]]:
    latest = {one.covers: one for one in session.summaries}  # of the same messages
    for one in latest.values():
        yield {
            "session_key": session.key,
            "covers": one.covers,
            "run_id": one.run_id,
            "role": one.message.role.value,
            "payload": to_payload(one.message),
            "created_at_ms": one.at_ms,
        }


def _failed_runs(session: ImportedSession) -> Iterator[Mapping[str, Any]]:
    """Yield a record for each run that failed: only its error is known."""
    failed = {one.run_id: one for one in session.messages if one.run_error is not None}
    for run_id, one in failed.items():
        yield {
            "id": run_id,
            "session_key": session.key,
            "agent_id": session.agent_id,
            "gateway_id": NO_GATEWAY,
            "door": Protocol.HTTP.value,
            "state": (RunState.ABORTED if one.run_error == _ABORTED else RunState.ERROR).value,
            "accepted_at_ms": one.at_ms,
            "ended_at_ms": one.at_ms,
            "error_code": one.run_error,
            "owner": owner_of(session.key),
        }
