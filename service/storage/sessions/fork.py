"""Copy one path of a session to a new session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from service.storage.database.database import SingleOperation
from service.storage.database.schema import entries, sessions, summaries
from service.storage.message_codec import from_payload
from service.storage.runs.finishing import restore_session
from service.storage.runs.rows import to_title
from service.storage.sessions.paths import find_summary
from service.storage.sessions.tree import Path, read_tree

_COPIED = [column.name for column in entries.c if column.name not in ("id", "session_key", "seq")]


@dataclass(slots=True, eq=False)
class ForkSession(SingleOperation[bool]):
    """Copy the path to message `seq` of the session `source` to the session `key`; return whether that is stored.

    The messages keep their runs, times and digests. A summary on the path is copied, too. Whether the client of the
    source resends the conversation is not: the one of the copy may be another.
    """

    source: str
    seq: int
    key: str
    session_id: str
    at_ms: int

    @property
    def session_key(self) -> str | None:
        """See `Operation`."""
        return self.source

    def apply(self, connection: sa.Connection) -> bool:
        """See `SingleOperation`."""
        restore_session(connection, self.source)
        tree = read_tree(connection, self.source)
        if not 0 <= self.seq <= tree.tip:
            return False
        if self.again and read_tree(connection, self.key).entry_count:
            return True  # committed by an earlier attempt that was not acknowledged
        path = tree.path_to(self.seq)
        self._add_session(connection, path)
        start = 0
        for part in path:
            self._copy(connection, part, start - part.start)
            start += len(part)
        self._complete(connection)
        self._copy_summary(connection, path)
        return True

    def _add_session(self, connection: sa.Connection, path: Path) -> None:
        values = {
            "key": self.key,
            "session_id": self.session_id,
            "entry_count": sum(map(len, path)),
            "created_at_ms": self.at_ms,
            "updated_at_ms": self.at_ms,
        }
        copied = ("agent_id", "model", "owner")
        columns = (*(sessions.c[name] for name in copied), *(sa.literal(value) for value in values.values()))
        source = sa.select(*columns).where(sessions.c.key == self.source)
        connection.execute(sessions.insert().from_select([*copied, *values], source))

    def _copy(self, connection: sa.Connection, part: range, offset: int) -> None:
        chosen = (entries.c.session_key == self.source, entries.c.seq >= part.start, entries.c.seq < part.stop)
        columns = (sa.literal(self.key), entries.c.seq + offset, *(entries.c[name] for name in _COPIED))
        source = sa.select(*columns).where(*chosen).order_by(entries.c.seq)
        connection.execute(entries.insert().from_select(["session_key", "seq", *_COPIED], source))

    def _complete(self, connection: sa.Connection) -> None:
        """Set what depends on the copied messages: title, last run and usage."""
        own = entries.c.session_key == self.key
        counts = ("input_tokens", "output_tokens", "cached_tokens")
        sums: list[Any] = [sa.func.coalesce(sa.func.sum(entries.c[name]), 0).label(name) for name in counts]
        usage = connection.execute(sa.select(*sums).where(own)).mappings().one()
        said = sa.select(entries.c.role, entries.c.payload).where(own, entries.c.role == "user")
        first = connection.execute(said.order_by(entries.c.seq).limit(1)).first()
        last = connection.execute(sa.select(entries.c.run_id).where(own).order_by(entries.c.seq.desc()).limit(1)).one()
        title = None if first is None else to_title((from_payload(first.role, first.payload),))
        values = {"title": title, "last_run_id": last.run_id, **{name: int(usage[name]) for name in counts}}
        connection.execute(sessions.update().where(sessions.c.key == self.key).values(values))

    def _copy_summary(self, connection: sa.Connection, path: Path) -> None:
        summary = find_summary(connection, self.source, path)
        if summary is None:
            return
        covered = sum(len(range(part.start, min(part.stop, summary.covers))) for part in path)
        connection.execute(
            summaries.insert().values(
                session_key=self.key,
                covers=covered,
                run_id=summary.run_id,
                role=summary.role,
                payload=summary.payload,
                created_at_ms=summary.created_at_ms,
            )
        )
