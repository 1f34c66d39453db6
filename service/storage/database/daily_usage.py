"""Add to the daily totals of usage, at the end of the transaction that ends what has used something.

All processes add to the rows of a day. They are locked last, and in one order, so that transactions never wait for each
other in a circle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from operator import add
from typing import Any

import sqlalchemy as sa

from service.core.dataclass import record
from service.core.messages import to_unicode
from service.core.usage import ModelCall
from service.storage.database.caller_schema import USAGE_COUNTS, USAGE_KEY, daily_usage
from service.storage.database.prepared_statements import Dialect, PreparedStatement, insert

#: The longest name of a user, as the contract has it for runs.
_MAX_USER_CHARACTERS = 128

_DAY_MS = 24 * 60 * 60 * 1000

_MAX_KNOWN_ROWS = 10_000

_Key = tuple[int, str, str, str, str]
_Counts = tuple[int, ...]  # in the order of USAGE_COUNTS


@record
class UsageEntry:
    """The calls of a run or a request that ended at `at_ms`; `model` is the one that answered a run."""

    at_ms: int
    account: str
    user: str | None
    agent_id: str
    calls: Sequence[ModelCall]
    model: str | None = None


def _add_row(dialect: Dialect) -> sa.Executable:
    add = insert(dialect, daily_usage)
    added = {name: daily_usage.c[name] + add.excluded[name] for name in USAGE_COUNTS}
    return add.on_conflict_do_update(index_elements=USAGE_KEY, set_=added).returning(daily_usage.c.id)


def _extend_row(_: Dialect) -> sa.Executable:
    # The rest of the key is compared, too, because the row may have been rolled back and its id given to another.
    same = (daily_usage.c[name] == sa.bindparam(f"of_{name}") for name in ("id", *USAGE_KEY))
    added = {name: daily_usage.c[name] + sa.bindparam(f"new_{name}", type_=sa.BigInteger) for name in USAGE_COUNTS}
    return daily_usage.update().where(*same).values(added)


_ADD_ROW = PreparedStatement(_add_row, columns=(*USAGE_KEY, *USAGE_COUNTS))
_EXTEND_ROW = PreparedStatement(
    _extend_row,
    order=(*(f"of_{name}" for name in USAGE_KEY), *(f"new_{name}" for name in USAGE_COUNTS), "of_id"),
)


class UsageWriter:
    """Adds to the totals. It remembers where rows are: one is found by its id at half the cost."""

    def __init__(self) -> None:
        self._ids: dict[_Key, int] = {}

    def add(self, connection: sa.Connection, entries: Sequence[UsageEntry]) -> None:
        """Add to the totals in the transaction of `connection`."""
        rows: dict[_Key, _Counts] = {}
        for entry in entries:
            _add_entry(rows, entry)
        for key in sorted(rows):
            counts = rows[key]
            known = self._ids.get(key)
            if known is None or not _EXTEND_ROW.execute_many(connection, [(*key, *counts, known)]):
                self._add_row(connection, key, counts)

    def _add_row(self, connection: sa.Connection, key: _Key, counts: _Counts) -> None:
        if len(self._ids) >= _MAX_KNOWN_ROWS:
            self._ids.clear()
        row: Any = _ADD_ROW.first(connection, dict(zip((*USAGE_KEY, *USAGE_COUNTS), (*key, *counts), strict=True)))
        self._ids[key] = row.id


def _add_entry(rows: dict[_Key, _Counts], entry: UsageEntry) -> None:
    day, user = entry.at_ms // _DAY_MS, to_user_name(entry.user) if entry.user else ""
    key = None
    for call in entry.calls:
        key, counts = (day, entry.account, user, entry.agent_id, call.model), _counts_of(call)
        rows[key] = tuple(map(add, rows[key], counts)) if key in rows else counts
    if key is not None and entry.model is not None:
        answered = (*key[:-1], entry.model)
        key = answered if answered in rows else key
        runs, *others = rows[key]
        rows[key] = (runs + 1, *others)


def _counts_of(call: ModelCall) -> _Counts:
    """Return what a call adds; its cost may be unknown, as may the rest of one that was cut off."""
    usage, cost = call.usage, call.usage.cost_nano
    return (
        0,
        1,
        int(cost is None),
        usage.input_tokens,
        usage.cached_tokens,
        usage.cache_write_tokens,
        usage.output_tokens,
        usage.reasoning_tokens or 0,
        cost or 0,
        call.estimate_nano if cost is None else 0,
    )


def to_user_name(user: str) -> str:
    """Return what the totals have for the name of a caller's user: its beginning and a digest if it is long."""
    name = to_unicode(user).replace("\0", "\ufffd")
    if len(name) <= _MAX_USER_CHARACTERS:
        return name
    return f"{name[: _MAX_USER_CHARACTERS - 17]}~{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}"
