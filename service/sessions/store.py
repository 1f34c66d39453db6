"""The transcripts: what was said in each session, in one SQLite database.

A turn is stored whole or not at all, and `append_turn` returns only once it is. The database is touched in two real
threads, one that writes and one that reads, so nobody else waits for a disk and readers never wait for the writer.
"""

from __future__ import annotations

import os
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from service.concurrency import Event, Worker, spawn
from service.messages import Message, Usage
from service.sessions.overview import (
    LIST_SESSIONS,
    LIST_SESSIONS_OF_AGENT,
    READ_RECENT,
    READ_SESSION,
    RecentMessage,
    SessionOverview,
    to_overview,
    to_recent_message,
)
from service.sessions.payloads import from_payload, to_payload
from service.sessions.schema import StoreError, create_file, entries, open_reader, open_writer, sessions, summaries

__all__ = ["SessionStore", "StoreError"]

P = ParamSpec("P")
T = TypeVar("T")
NewId = Callable[[], str]

#: How many turns one transaction takes, so that the first of a crowd does not wait for the last.
MAX_TURNS_PER_COMMIT = 256

_COUNT_ENTRIES = sa.select(sessions.c.key, sessions.c.entry_count).where(
    sessions.c.key.in_(sa.bindparam("keys", expanding=True))
)
_EXTEND_SESSION = (
    sessions.update()
    .where(sessions.c.key == sa.bindparam("of_key"))
    .values(entry_count=sa.bindparam("count"), updated_at_ms=sa.bindparam("at_ms"))
)
_ADD_SESSION = sessions.insert()
_ADD_ENTRY = entries.insert()
_READ_CONVERSATION = (
    sa.select(entries.c.role, entries.c.payload)
    .where(entries.c.session_key == sa.bindparam("of_key"), entries.c.seq >= sa.bindparam("first"))
    .order_by(entries.c.seq)
)
_READ_SUMMARY = (
    sa.select(summaries.c.role, summaries.c.payload, summaries.c.covers)
    .where(summaries.c.session_key == sa.bindparam("of_key"))
    .order_by(summaries.c.covers.desc())
    .limit(1)
)
_ADD_SUMMARY = summaries.insert()
_READ_ANYTHING = sa.select(sessions.c.key).limit(1)


def new_session_id() -> str:
    """A session id nobody else has."""
    return str(uuid.uuid4())


@dataclass(slots=True, eq=False)
class _Turn:
    """A turn on its way into the database: `session` is the row of its session should it have none yet."""

    session: dict[str, Any]
    rows: list[dict[str, Any]]
    settled: Event = field(default_factory=Event)
    error: Exception | None = None


class DatabaseThread:
    """One connection in one real thread: every use of it is a job that runs there, in order."""

    def __init__(self, connect: Callable[[], sa.Connection]) -> None:
        self._worker = Worker()
        try:
            self._connection = self._worker.run(connect)
        except BaseException:
            self._worker.close()
            raise

    def run(self, job: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `job(connection, ...)` in the thread, wait for it, return its result or raise its exception."""
        return self._worker.run(partial(job, self._connection, *args, **kwargs))

    def close(self) -> None:
        """Finish what was begun, close the connection and end the thread."""
        try:
            self._worker.run(self._connection.close)
        finally:
            self._worker.close()


class SessionStore:
    """The transcripts of all sessions. All methods are called from one thread and may wait."""

    def __init__(
        self, path: Path, writer: DatabaseThread, reader: DatabaseThread, clock: Callable[[], float], new_id: NewId
    ) -> None:
        self._path = path
        self._file = path.stat()
        self._writer = writer
        self._reader = reader
        self._clock = clock
        self._new_id = new_id
        self._waiting: deque[_Turn] = deque()
        self._idle = Event()
        self._idle.set()
        self._closed = False

    @classmethod
    def open(cls, path: Path, clock: Callable[[], float] = time.time, new_id: NewId = new_session_id) -> Self:
        """Open the database at `path`, making it, and its directory, if there is none; the caller closes the store.

        `clock` tells seconds since the epoch, `new_id` makes session ids. The file is for its owner alone. Raises
        `StoreError` when `path` cannot be used, in particular when a newer version of the program has been there.
        """
        try:
            create_file(path)
            with ExitStack() as opened:
                writer = DatabaseThread(partial(open_writer, path))
                opened.callback(writer.close)
                reader = DatabaseThread(partial(open_reader, path))
                opened.callback(reader.close)
                store = cls(path, writer, reader, clock, new_id)
                opened.pop_all()
                return store
        except (OSError, SQLAlchemyError, StoreError) as error:
            raise StoreError(f"The session database {path} cannot be used: {_reason(error)}") from error

    def load_conversation(self, key: str) -> tuple[Message, ...]:
        """What a model has to know of the session `key`, in order; nothing for a session that has no turn yet.

        That is every message, or the latest summary and every message that it does not cover.
        """
        summary = self._read(_READ_SUMMARY, {"of_key": key})
        first = summary[0].covers if summary else 0
        rows = [*summary, *self._read(_READ_CONVERSATION, {"of_key": key, "first": first})]
        return tuple(from_payload(row.role, row.payload) for row in rows)

    def get_session(self, key: str) -> SessionOverview | None:
        """What is known of the session `key` as a whole; `None` if it has no turn yet."""
        rows = self._read(READ_SESSION, {"of_key": key, "most": 1})
        return to_overview(rows[0]) if rows else None

    def list_sessions(self, agent_id: str | None, limit: int) -> tuple[SessionOverview, ...]:
        """The sessions of one agent, or of all with `None`: at most `limit`, the last used first."""
        statement = LIST_SESSIONS if agent_id is None else LIST_SESSIONS_OF_AGENT
        parameters = {"most": limit} if agent_id is None else {"most": limit, "of_agent": agent_id}
        return tuple(map(to_overview, self._read(statement, parameters)))

    def load_recent_messages(self, key: str, limit: int) -> tuple[RecentMessage, ...]:
        """The last messages of the session `key`, at most `limit`, newest first."""
        return tuple(map(to_recent_message, self._read(READ_RECENT, {"of_key": key, "most": limit})))

    def append_turn(
        self, key: str, agent_id: str, run_id: str, messages: Sequence[Message], *, usage: Usage, model: str
    ) -> None:
        """Add one turn to the session `key`, which begins with its first turn; return once it is committed.

        `messages` is what the run added, at least one. `usage` and `model` are those of the whole turn. Turns that
        come while a commit is under way share the next one. Raises `StoreError`, and then nothing of this turn is
        stored. A caller that is interrupted while it waits does not learn the outcome: the turn is stored as usual.
        """
        self._check_open()
        turn = self._to_turn(key, agent_id, run_id, messages, usage=usage, model=model)
        self._waiting.append(turn)
        if self._idle.is_set():
            self._idle.clear()
            spawn(self._write_waiting)
        turn.settled.wait()
        if turn.error is not None:
            raise StoreError(f"The turn could not be stored: {_reason(turn.error)}") from turn.error

    def append_summary(self, key: str, run_id: str, summary: Message, *, kept: int) -> None:
        """Let `summary` stand for all of the session `key` but its last `kept` messages; return once it is committed.

        `load_conversation` then begins with it; the messages it covers stay stored. One that covers exactly what an
        earlier one does takes its place. Raises `StoreError`, and then nothing is changed.
        """
        self._check_open()
        row = {
            "session_key": key,
            "run_id": run_id,
            "role": summary.role.value,
            "payload": to_payload(summary),
            "created_at_ms": int(self._clock() * 1000),
        }
        try:
            self._writer.run(_write_summary, row, kept)
        except SQLAlchemyError as error:
            raise StoreError(f"The summary could not be stored: {_reason(error)}") from error

    def check(self) -> None:
        """Return if the store can be used, raise `StoreError` if it is closed, unreadable or its file was replaced."""
        self._read(_READ_ANYTHING, {})
        try:
            same = os.path.samestat(self._path.stat(), self._file)
        except OSError:
            same = False
        if not same:
            raise StoreError(f"The session database {self._path} has been removed or replaced: restart the gateway.")

    def close(self) -> None:
        """Finish the turns that wait, then let go of the database. Twice is a no-op; other calls then raise."""
        if self._closed:
            return
        self._closed = True
        self._idle.wait()
        self._reader.close()
        self._writer.close()  # last, because the last connection folds the write-ahead log into the database

    def _to_turn(
        self, key: str, agent_id: str, run_id: str, messages: Sequence[Message], *, usage: Usage, model: str
    ) -> _Turn:
        if not messages:
            raise StoreError("A turn has at least one message.")
        now_ms = int(self._clock() * 1000)
        rows: list[dict[str, Any]] = [
            {
                "session_key": key,
                "run_id": run_id,
                "role": message.role.value,
                "payload": to_payload(message),
                "model": None,
                "input_tokens": None,
                "output_tokens": None,
                "cached_tokens": None,
                "created_at_ms": now_ms,
            }
            for message in messages
        ]
        rows[-1].update(
            model=model,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cached_tokens,
        )
        return _Turn({"key": key, "session_id": self._new_id(), "agent_id": agent_id, "created_at_ms": now_ms}, rows)

    def _write_waiting(self) -> None:
        while self._waiting:
            turns = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_TURNS_PER_COMMIT))]
            errors = self._writer.run(_write_or_explain, turns)
            for turn, error in zip(turns, errors, strict=True):
                turn.error = error
                turn.settled.set()
        self._idle.set()

    def _read(self, statement: sa.Select[Any], parameters: dict[str, Any]) -> Sequence[sa.Row[Any]]:
        self._check_open()
        try:
            return self._reader.run(_fetch, statement, parameters)
        except SQLAlchemyError as error:
            raise StoreError(f"The session database {self._path} cannot be read: {_reason(error)}") from error

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("The session store is closed.")


def _fetch(connection: sa.Connection, statement: sa.Select[Any], parameters: dict[str, Any]) -> Sequence[sa.Row[Any]]:
    with connection.begin():
        return connection.execute(statement, parameters).all()


def _write_or_explain(connection: sa.Connection, turns: Sequence[_Turn]) -> list[Exception | None]:
    """Store the turns; for each, the error that kept it out, or None."""
    try:
        _write(connection, turns)
    except OperationalError as error:  # the disk, the lock: not the fault of a single turn
        return [error] * len(turns)
    except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits for the turn is told
        if len(turns) == 1:
            return [error]
        return [_write_or_explain(connection, [turn])[0] for turn in turns]
    return [None] * len(turns)


def _write(connection: sa.Connection, turns: Sequence[_Turn]) -> None:
    with connection.begin():
        keys = list({turn.session["key"] for turn in turns})
        counts = {row.key: row.entry_count for row in connection.execute(_COUNT_ENTRIES, {"keys": keys})}
        known = frozenset(counts)
        added: dict[str, dict[str, Any]] = {}
        extended: dict[str, dict[str, Any]] = {}
        for turn in turns:
            key, now_ms = turn.session["key"], turn.session["created_at_ms"]
            first = counts.get(key, 0)
            for seq, row in enumerate(turn.rows, start=first):
                row["seq"] = seq
            counts[key] = first + len(turn.rows)
            if key in known:
                extended[key] = {"of_key": key, "count": counts[key], "at_ms": now_ms}
            else:
                added[key] = {**added.get(key, turn.session), "entry_count": counts[key], "updated_at_ms": now_ms}
        if added:
            connection.execute(_ADD_SESSION, list(added.values()))
        if extended:
            connection.execute(_EXTEND_SESSION, list(extended.values()))
        connection.execute(_ADD_ENTRY, [row for turn in turns for row in turn.rows])


def _write_summary(connection: sa.Connection, row: dict[str, Any], kept: int) -> None:
    key = row["session_key"]
    with connection.begin():
        count = connection.execute(_COUNT_ENTRIES, {"keys": [key]}).first()
        covers = count.entry_count - kept if count else 0
        if kept < 0 or covers < 1:
            raise StoreError(f"A summary covers at least one message: the session has no more than {kept}.")
        connection.execute(
            summaries.delete().where(summaries.c.session_key == key, summaries.c.covers == covers),
        )
        connection.execute(_ADD_SUMMARY, {**row, "covers": covers})


def _reason(error: Exception) -> BaseException:
    """What went wrong, without the SQL that SQLAlchemy adds."""
    return error.orig if isinstance(error, DBAPIError) and error.orig else error
