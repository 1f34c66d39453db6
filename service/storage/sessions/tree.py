"""A session as a tree: every message follows an earlier one, and a path leads from the first message to the last.

Messages are numbered in the order in which they were stored, and each run stores its own in a row. A message therefore
follows the one before it, except where a branch begins: only that is stored. The current branch is the one that ends
with the latest message.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice
from typing import Any

import sqlalchemy as sa

from service.core.dataclass import record
from service.storage.database.prepared_statements import PreparedStatement
from service.storage.database.schema import branches, entries, sessions

#: In place of a message's number: before the first message.
ROOT = -1

#: The numbers of the messages of a path, in order: most paths are one range, others have one more for each branch.
Path = tuple[range, ...]

_first, _latest = entries.alias("first_entry"), entries.alias("latest_entry")
_READ_STATE = PreparedStatement(
    lambda _: (
        sa.select(
            sessions.c.session_id,
            sessions.c.entry_count,
            sessions.c.resends,
            sessions.c.branched,
            _first.c.digest.label("first_digest"),
            _latest.c.digest.label("latest_digest"),
        )
        .select_from(
            sessions.outerjoin(_first, sa.and_(_first.c.session_key == sessions.c.key, _first.c.seq == 0)).outerjoin(
                _latest, sa.and_(_latest.c.session_key == sessions.c.key, _latest.c.seq == sessions.c.entry_count - 1)
            )
        )
        .where(sessions.c.key == sa.bindparam("of_key"))
    )
)
#: The values of a `SessionHead`.
READ_HEAD = PreparedStatement(
    lambda _: sa.select(sessions.c.session_id, sessions.c.entry_count).where(sessions.c.key == sa.bindparam("of_key"))
)
_READ_BRANCHES = (
    sa.select(branches.c.first_seq, branches.c.parent_seq)
    .where(branches.c.session_key == sa.bindparam("of_key"))
    .order_by(branches.c.first_seq)
)


@record
class SessionHead:
    """A session's id and number of messages. Nothing in it has changed while both are the same."""

    session_id: str = ""
    entry_count: int = 0


@record
class Branch:
    """A branch, which begins with message `first` and follows message `parent`, or `ROOT`."""

    first: int
    parent: int


@record
class SessionTree:
    """The shape of a session.

    `resends`: its HTTP client sends the whole conversation with each request. `is_digested`: its messages have digests
    from the first on; `digest` is that of the current branch, if it is stored.
    """

    session_id: str = ""
    entry_count: int = 0
    branches: tuple[Branch, ...] = ()
    resends: bool = False
    is_digested: bool = True
    digest: str | None = None

    @property
    def tip(self) -> int:
        """The last message of the current branch; `ROOT` without messages."""
        return self.entry_count - 1

    @property
    def leaves(self) -> tuple[int, ...]:
        """The last messages of all branches, in order; the last one is `tip`."""
        parents = {branch.parent for branch in self.branches}
        ends = {branch.first - 1 for branch in self.branches} - parents
        return tuple(sorted((ends | {self.tip}) - {ROOT}))

    def parent_of(self, seq: int) -> int:
        """Return the message that message `seq` follows, or `ROOT`."""
        return next((branch.parent for branch in self.branches if branch.first == seq), seq - 1)

    def path_to(self, seq: int) -> Path:
        """Return the path that ends with message `seq`; empty for `ROOT`."""
        parts: list[range] = []
        for branch in reversed(self.branches):
            if branch.first <= seq:
                parts.append(range(branch.first, seq + 1))
                seq = branch.parent
        if seq > ROOT:
            parts.append(range(seq + 1))
        return tuple(reversed(parts))

    def extended(self, parent: int | None, count: int) -> SessionTree:
        """Return the tree with `count` further messages after message `parent`, `None` for the tip."""
        is_branch = parent is not None and parent != self.tip
        added = (Branch(self.entry_count, parent),) if parent is not None and is_branch and count else ()
        return SessionTree(
            self.session_id, self.entry_count + count, (*self.branches, *added), self.resends, self.is_digested
        )


def last_of(path: Path, count: int) -> tuple[int, ...]:
    """Return the last `count` messages of `path`, in order."""
    newest_first = chain.from_iterable(map(reversed, reversed(path)))
    return tuple(islice(newest_first, count))[::-1]


def read_tree(connection: sa.Connection, key: str) -> SessionTree:
    """Read the tree of the session `key`; one without messages if it does not exist."""
    state = _READ_STATE.first(connection, {"of_key": key})
    if state is None:
        return SessionTree()
    rows: Sequence[Any] = connection.execute(_READ_BRANCHES, {"of_key": key}).all() if state.branched else ()
    return SessionTree(
        state.session_id,
        state.entry_count,
        tuple(Branch(row.first_seq, ROOT if row.parent_seq is None else row.parent_seq) for row in rows),
        bool(state.resends),
        state.first_digest is not None or not state.entry_count,
        state.latest_digest,
    )
