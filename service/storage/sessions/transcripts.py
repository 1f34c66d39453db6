"""Read access to the transcripts of sessions; runs write them (`service.storage.runs.finishing`).

The cost of reading the end of a session does not depend on its length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import sqlalchemy as sa

from service.core.dataclass import record
from service.core.messages import Message
from service.storage.cluster.membership import IS_ACTIVE, NO_GATEWAY, PENDING
from service.storage.database.database import Database, SingleOperation
from service.storage.database.errors import StoreError
from service.storage.database.prepared_statements import insert
from service.storage.database.schema import (
    approvals,
    branches,
    claims,
    entries,
    lanes,
    run_events,
    runs,
    sessions,
    stateless_turns,
    summaries,
    webhooks,
)
from service.storage.message_codec import from_payload
from service.storage.runs.records import AcceptedRun, RunOutcome
from service.storage.runs.stateless_turns import find_stateless_turn
from service.storage.sessions.path_cache import LoadedPath, PathCache, size_of
from service.storage.sessions.paths import (
    UnknownPart,
    find_digests,
    find_last_of_run,
    read_conversation,
    read_range,
    read_recent,
)
from service.storage.sessions.queries import (
    MAX_PAYLOAD_CHARACTERS,
    READ_SESSION,
    SESSION_TABLES,
    Position,
    RecentMessage,
    SessionOverview,
    by_start,
    by_use,
    list_by_start,
    list_by_use,
    to_overview,
    to_recent_message,
)
from service.storage.sessions.tree import SessionHead, SessionTree, read_tree

__all__ = ["StoreError", "TranscriptStore"]

#: Entries per page when a whole session is read.
PAGE_ENTRIES = 500

_MAX_SEARCH_CHARACTERS = 4096

_READ_SUMMARIES = (
    sa.select(summaries).where(summaries.c.session_key == sa.bindparam("of_key")).order_by(summaries.c.covers)
)
_READ_REPLY = (
    sa.select(entries.c.role, entries.c.payload)
    .where(entries.c.session_key == sa.bindparam("of_key"), entries.c.run_id == sa.bindparam("of_run"))
    .order_by(entries.c.seq.desc())
    .limit(sa.bindparam("most"))
)
_READ_PAGE = (
    sa.select(entries)
    .where(entries.c.session_key == sa.bindparam("of_key"), entries.c.seq >= sa.bindparam("first"))
    .order_by(entries.c.seq)
    .limit(PAGE_ENTRIES)
)


@record
class StoredEntry:
    """A message of a transcript with its metadata; `model` and the token counts are set on a turn's last one."""

    seq: int
    run_id: str
    message: Message
    at_ms: int
    model: str | None
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    digest: str | None


@record
class StoredSummary:
    """A summary that replaces the messages before number `covers` on the paths with message `covers - 1`."""

    covers: int
    run_id: str
    message: Message
    at_ms: int


class TranscriptStore:
    """The transcripts of all sessions. Methods may block and raise `StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._paths = PathCache()

    def load_conversation(self, key: str) -> tuple[Message, ...]:
        """Return the current branch of the session `key` for a model, in order; empty for a session without turns.

        It consists of all messages, or of the latest summary and all messages that it does not cover.
        """
        if alone := self._stateless_entries(key):
            return tuple(from_payload(row.role, row.payload) for row in alone)
        tree = self.read_tree(key)
        return self.load_path(key, tree, tree.tip).messages

    def read_tree(self, key: str, head: SessionHead | None = None) -> SessionTree:
        """Return the shape of the session `key`; with its current `head`, what is known of it is not read again."""
        if head is not None and (known := self._paths.find_current(key, head)):
            return known.tree
        tree = self._database.read(partial(read_tree, key=key))
        return tree if tree.entry_count else SessionTree(entry_count=len(self._stateless_entries(key)))

    def load_current(self, key: str, head: SessionHead | None = None) -> LoadedPath:
        """Return the current branch of a session that a run holds, as `load_conversation` does.

        With the current `head` of the session, what is known of it is not read again.
        """
        if head == SessionHead():
            return LoadedPath(SessionTree(), (), None, (), 0)
        if head is not None and (known := self._paths.find_current(key, head)):
            return known

        def load(connection: sa.Connection) -> tuple[SessionTree, UnknownPart]:
            tree = read_tree(connection, key)
            return tree, self._read(connection, key, tree, tree.tip)

        tree, read = self._database.read(load)
        return self._complete(key, tree, tree.tip, read)

    def add_turn(self, run: AcceptedRun, before: LoadedPath, outcome: RunOutcome) -> None:
        """Keep the messages that a run has stored after those of `before`, so that the next one need not read them."""
        if outcome.messages and outcome.summary is None:
            self._paths.put(run.session_key, before.extended(run.new_session_id, outcome))

    def load_path(self, key: str, tree: SessionTree, end: int) -> LoadedPath:
        """Return the path to message `end` for a model, as `load_conversation` does."""
        read = self._database.read(partial(self._read, key=key, tree=tree, end=end))
        return self._complete(key, tree, end, read)

    def _read(self, connection: sa.Connection, key: str, tree: SessionTree, end: int) -> UnknownPart:
        path = tree.path_to(end)
        return read_conversation(connection, key, path, self._paths.find(key, tree.session_id, path))

    def _complete(self, key: str, tree: SessionTree, end: int, read: UnknownPart) -> LoadedPath:
        added = tuple(from_payload(row.role, row.payload) for row in read.rows)
        size = size_of(sum(len(row.payload) for row in read.rows), len(added))
        known = read.known or LoadedPath(tree, (), read.summarised_by, (), 0)
        loaded = known.with_messages(tree, tree.path_to(end), added, size)
        self._paths.put(key, loaded)
        return loaded

    def load_messages(self, key: str, seqs: Sequence[int]) -> tuple[Message, ...]:
        """Return a few messages by their numbers."""
        rows = (row for seq in seqs for row in self._database.read(partial(read_range, key=key, first=seq, last=seq)))
        return tuple(from_payload(row.role, row.payload) for row in rows)

    def find_last_of_run(self, key: str, run_id: str) -> tuple[int, str | None] | None:
        """Return the number and the digest of the last message that a run added to the session `key`, if any."""
        return self._database.read(partial(find_last_of_run, key=key, run_id=run_id))

    def find_digests(self, key: str, digests: Sequence[str]) -> dict[str, list[int]]:
        """Map those of `digests` that the session has to the messages they end with, in order."""
        return self._database.read(partial(find_digests, key=key, digests=digests))

    def get_session(self, key: str) -> SessionOverview | None:
        """Return the metadata of the session `key`; `None` if it has no turn."""
        rows = self._database.fetch(READ_SESSION, {"of_key": key})
        return to_overview(rows[0]) if rows else None

    def list_sessions(
        self, agent_id: str | None, limit: int, *, search: str = "", since_ms: int = 0, owner: str | None = None
    ) -> tuple[SessionOverview, ...]:
        """Return at most `limit` sessions of one agent and one owner (`None`: all), last used first.

        Only sessions whose keys contain the lower-case `search` and that were used at `since_ms` or later.
        """
        if len(search) > _MAX_SEARCH_CHARACTERS or "\0" in search:
            return ()  # no key is that long or contains NUL
        kinds = (False, True) if agent_id is None and owner is None else (None,)
        statements = [
            list_by_use(table, agent_id, stateless=kind, search=search, since_ms=since_ms, limit=limit, owner=owner)
            for table in SESSION_TABLES
            for kind in kinds
        ]
        return tuple(sorted(self._load_overviews(statements), key=by_use)[:limit])

    def list_from(
        self,
        after: Position | None,
        limit: int,
        *,
        agent_id: str | None = None,
        stateless: bool | None = None,
        owner: str | None = None,
    ) -> tuple[SessionOverview, ...]:
        """Return at most `limit` sessions, newest first, starting after the cursor `after`.

        Every session is on exactly one page, however the sessions are used in the meantime. `agent_id`,
        `stateless` and `owner` filter the list.
        """
        kinds = (False, True) if stateless is None else (stateless,)
        statements = [
            list_by_start(table, agent_id, stateless=kind, after=after, limit=limit, owner=owner)
            for table in SESSION_TABLES
            for kind in kinds  # separate queries, because each is in the order of an index
        ]
        return tuple(sorted(self._load_overviews(statements), key=by_start, reverse=True)[:limit])

    def _load_overviews(self, statements: Sequence[sa.Select[Any]]) -> list[SessionOverview]:
        """Return what `statements` select, each session once."""
        rows = self._database.read(
            lambda connection: [row for statement in statements for row in connection.execute(statement)]
        )
        return list({row.key: to_overview(row) for row in rows}.values())

    def load_recent_messages(self, key: str, limit: int, end: int | None = None) -> tuple[RecentMessage, ...]:
        """Return the last messages of a path of the session `key`, at most `limit`, newest first.

        The path ends with message `end`; by default it is the current branch.
        """
        if alone := self._stateless_entries(key):
            rows = alone[: None if end is None else end + 1][::-1][:limit]
            for row in rows:
                if len(row.payload) > MAX_PAYLOAD_CHARACTERS:
                    row.payload = None
            return tuple(map(to_recent_message, rows))

        def load(connection: sa.Connection) -> list[sa.Row[Any]]:
            tree = read_tree(connection, key)
            return read_recent(connection, key, tree.path_to(tree.tip if end is None else end), limit)

        return tuple(map(to_recent_message, self._database.read(load)))

    def load_reply(self, key: str, run_id: str, count: int) -> tuple[Message, ...]:
        """Return the output of a run: the last `count` messages of its turn in the session `key`, in order."""
        rows: Sequence[Any] = self._stateless_entries(key)[::-1][:count]
        rows = rows or self._database.fetch(_READ_REPLY, {"of_key": key, "of_run": run_id, "most": count})
        return tuple(from_payload(row.role, row.payload) for row in reversed(rows))

    def iter_entries(self, key: str) -> Iterator[StoredEntry]:
        """Iterate over all messages of all branches of the session `key`, in order; read page by page."""
        yield from map(_to_entry, self._stateless_entries(key))
        first = 0
        while True:
            rows: Sequence[sa.Row[Any]] = self._database.fetch(_READ_PAGE, {"of_key": key, "first": first})
            yield from map(_to_entry, rows)
            if len(rows) < PAGE_ENTRIES:
                return
            first = rows[-1].seq + 1

    def _stateless_entries(self, key: str) -> list[Any]:
        """Return the messages of a stateless session like rows of `entries`.

        Readers look here first: a session that is continued in the meantime has its messages in `entries` after that.
        """
        turn = find_stateless_turn(self._database, key)
        return [] if turn is None else turn.to_entries()

    def list_summaries(self, key: str) -> tuple[StoredSummary, ...]:
        """Return all summaries of the session `key`, in order."""
        rows = self._database.fetch(_READ_SUMMARIES, {"of_key": key})
        return tuple(
            StoredSummary(row.covers, row.run_id, from_payload(row.role, row.payload), row.created_at_ms)
            for row in rows
        )

    def delete_session(self, key: str) -> bool | None:
        """Delete the session `key` with its messages and run records.

        Returns True if it was deleted, False if it did not exist, and `None` (without a change) while a run holds it.
        """
        return self._database.write(_DeleteSession(key))


@dataclass(slots=True, eq=False)
class _DeleteSession(SingleOperation["bool | None"]):
    key: str

    @property
    def session_key(self) -> str | None:
        return self.key

    def apply(self, connection: sa.Connection) -> bool | None:
        deleted = delete_session(connection, self.key)
        return True if self.again and deleted is False else deleted


def delete_session(connection: sa.Connection, key: str, last_used_ms: int | None = None) -> bool | None:
    """Delete a session in the transaction of `connection`; see `TranscriptStore.delete_session`.

    With `last_used_ms` only if that is when it was last used.
    """
    # A row to lock, so that no run starts in the session in the meantime.
    connection.execute(insert(connection.dialect, lanes).values(session_key=key, fence=0).on_conflict_do_nothing())
    lease = connection.execute(sa.select(lanes.c.run_id).where(lanes.c.session_key == key).with_for_update()).one()
    if lease.run_id is not None:
        return None
    if last_used_ms is not None:
        session = connection.execute(READ_SESSION, {"of_key": key}).first()
        if session is None or session.updated_at_ms != last_used_ms:
            return False
    # Queued runs of the session are kept.
    ended = runs.c.session_key == key, ~IS_ACTIVE
    for table in (entries, summaries, branches):
        connection.execute(table.delete().where(table.c.session_key == key))
    for table in (claims, run_events, webhooks):
        connection.execute(table.delete().where(table.c.run_id.in_(sa.select(runs.c.id).where(*ended))))
    connection.execute(runs.delete().where(*ended))
    nobody_waits = sa.or_(approvals.c.state != PENDING, approvals.c.gateway_id == NO_GATEWAY)
    connection.execute(approvals.delete().where(approvals.c.session_key == key, nobody_waits))
    connection.execute(lanes.delete().where(lanes.c.session_key == key, lanes.c.wanted_by.is_(None)))
    connection.execute(lanes.update().where(lanes.c.session_key == key).values(new_since_ms=0))  # one that is wanted
    alone = connection.execute(stateless_turns.delete().where(stateless_turns.c.session_key == key)).rowcount
    return connection.execute(sessions.delete().where(sessions.c.key == key)).rowcount + alone == 1


def _to_entry(row: sa.Row[Any]) -> StoredEntry:
    return StoredEntry(
        seq=row.seq,
        run_id=row.run_id,
        message=from_payload(row.role, row.payload),
        at_ms=row.created_at_ms,
        model=row.model,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        cached_tokens=row.cached_tokens,
        digest=row.digest,
    )
