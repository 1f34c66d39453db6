"""Read the messages of one path of a session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from service.core.dataclass import record
from service.storage.database.prepared_statements import PreparedStatement, is_among, to_list
from service.storage.database.schema import entries, summaries
from service.storage.sessions.path_cache import LoadedPath
from service.storage.sessions.queries import RECENT_COLUMNS
from service.storage.sessions.tree import Path

#: Digests in one query.
_DIGESTS_AT_ONCE = 500

_IN_RANGE = (
    entries.c.session_key == sa.bindparam("of_key"),
    entries.c.seq >= sa.bindparam("first"),
    entries.c.seq <= sa.bindparam("last"),
)
_READ_RANGE = PreparedStatement(
    lambda _: sa.select(entries.c.seq, entries.c.role, entries.c.payload).where(*_IN_RANGE).order_by(entries.c.seq)
)
_READ_RECENT = sa.select(*RECENT_COLUMNS).where(*_IN_RANGE).order_by(entries.c.seq.desc()).limit(sa.bindparam("most"))
_LAST_OF_RUN = (
    sa.select(entries.c.seq, entries.c.digest)
    .where(entries.c.session_key == sa.bindparam("of_key"), entries.c.run_id == sa.bindparam("of_run"))
    .order_by(entries.c.seq.desc())
    .limit(1)
)
_READ_SUMMARIES = PreparedStatement(
    lambda _: (
        sa.select(summaries)
        .where(summaries.c.session_key == sa.bindparam("of_key"))
        .order_by(summaries.c.covers.desc())
    )
)


@record
class UnknownPart:
    """The messages after the conversation `known`: `rows` of roles and payloads.

    `summarised_by` is the run with the summary before them.
    """

    known: LoadedPath | None
    summarised_by: str | None
    rows: list[Any]


def read_conversation(connection: sa.Connection, key: str, path: Path, known: LoadedPath | None) -> UnknownPart:
    """Read the conversation on `path` beyond `known`, which ends on the path: its latest summary, and the messages.

    `known` counts only if it has the same summary.
    """
    summary = find_summary(connection, key, path)
    summarised_by = None if summary is None else summary.run_id
    if known is not None and known.summarised_by == summarised_by:
        summary, first = None, known.path[-1].stop
    else:
        known, first = None, 0 if summary is None else summary.covers
    rows: list[Any] = [] if summary is None else [summary]
    for part in path:
        if part.stop > first:
            rows += read_range(connection, key, max(first, part.start), part[-1])
    return UnknownPart(known, summarised_by, rows)


def find_summary(connection: sa.Connection, key: str, path: Path) -> Any | None:
    """Return the summary that covers most of `path`: it ends with a message of the path."""
    found = _READ_SUMMARIES.execute(connection, {"of_key": key})
    on_path = (row for row in found if any(row.covers - 1 in part for part in path))
    summary = next(on_path, None)
    found.close()
    return summary


def read_range(connection: sa.Connection, key: str, first: int, last: int) -> Sequence[Any]:
    """Return numbers, roles and payloads of messages that were stored in a row."""
    return _READ_RANGE.all(connection, {"of_key": key, "first": first, "last": last})


def read_recent(connection: sa.Connection, key: str, path: Path, limit: int) -> list[sa.Row[Any]]:
    """Return the last messages of `path`, at most `limit`, newest first."""
    rows: list[sa.Row[Any]] = []
    for part in reversed(path):
        if len(rows) < limit:
            given = {"of_key": key, "first": part.start, "last": part[-1], "most": limit - len(rows)}
            rows += connection.execute(_READ_RECENT, given)
    return rows


def find_last_of_run(connection: sa.Connection, key: str, run_id: str) -> tuple[int, str | None] | None:
    """Return the number and the digest of the last message that a run added to the session, if any."""
    found = connection.execute(_LAST_OF_RUN, {"of_key": key, "of_run": run_id}).first()
    return None if found is None else (found.seq, found.digest)


def find_digests(connection: sa.Connection, key: str, digests: Sequence[str]) -> dict[str, list[int]]:
    """Map those of `digests` that the session has to the messages they end with, in order."""
    found: dict[str, list[int]] = {}
    dialect = connection.dialect
    wanted = is_among(dialect, entries.c.digest, "digests")
    select = sa.select(entries.c.seq, entries.c.digest).where(entries.c.session_key == sa.bindparam("of_key"), wanted)
    for start in range(0, len(digests), _DIGESTS_AT_ONCE):
        some = to_list(dialect, digests[start : start + _DIGESTS_AT_ONCE])
        for row in connection.execute(select.order_by(entries.c.seq), {"of_key": key, "digests": some}):
            found.setdefault(row.digest, []).append(row.seq)
    return found
