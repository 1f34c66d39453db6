"""Add to the daily totals of usage, at the end of the transaction that ends what has used something.

All processes add to the rows of a day. They are locked last, and in one order, so that transactions never wait for each
other in a circle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from service.core.dataclass import record
from service.core.messages import to_unicode
from service.core.usage import ModelCall, UsageTotals
from service.storage.database.caller_schema import USAGE_COUNTS, USAGE_KEY, daily_usage
from service.storage.database.prepared_statements import Dialect, PreparedStatement, insert

#: The longest name of a user, as the contract has it for runs.
_MAX_USER_CHARACTERS = 128

_DAY_MS = 24 * 60 * 60 * 1000

_MAX_KNOWN_ROWS = 10_000

_Key = tuple[int, str, str, str, str]


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
_EXTEND_ROW = PreparedStatement(_extend_row)
_EXTENSION = (*(f"of_{name}" for name in USAGE_KEY), *(f"new_{name}" for name in USAGE_COUNTS), "of_id")


class UsageWriter:
    """Adds to the totals. It remembers where rows are: one is found by its id at half the cost."""

    def __init__(self) -> None:
        self._ids: dict[_Key, int] = {}

    def add(self, connection: sa.Connection, entries: Sequence[UsageEntry]) -> None:
        """Add to the totals in the transaction of `connection`."""
        rows: dict[_Key, UsageTotals] = {}
        for entry in entries:
            _add_entry(rows, entry)
        for key in sorted(rows):
            totals = rows[key]
            counts = [getattr(totals, name) for name in USAGE_COUNTS]
            known = self._ids.get(key)
            if known is None or not _EXTEND_ROW.execute_many(
                connection, [dict(zip(_EXTENSION, (*key, *counts, known), strict=True))]
            ):
                self._add_row(connection, key, counts)

    def _add_row(self, connection: sa.Connection, key: _Key, counts: Sequence[int]) -> None:
        if len(self._ids) >= _MAX_KNOWN_ROWS:
            self._ids.clear()
        row: Any = _ADD_ROW.first(connection, dict(zip((*USAGE_KEY, *USAGE_COUNTS), (*key, *counts), strict=True)))
        self._ids[key] = row.id


def _add_entry(rows: dict[_Key, UsageTotals], entry: UsageEntry) -> None:
    day, account, user = entry.at_ms // _DAY_MS, entry.account, to_user_name(entry.user) if entry.user else ""
    totals = None
    for call in entry.calls:
        key = (day, account, user, entry.agent_id, call.model)
        totals = rows.get(key)
        if totals is None:
            totals = rows[key] = UsageTotals()
        totals.add_call(call)
    if totals is not None and entry.model is not None:
        rows.get((day, account, user, entry.agent_id, entry.model), totals).runs += 1


def to_user_name(user: str) -> str:
    """Return what the totals have for the name of a caller's user: its beginning and a digest if it is long."""
    name = to_unicode(user).replace("\0", "\ufffd")
    if len(name) <= _MAX_USER_CHARACTERS:
        return name
    return f"{name[: _MAX_USER_CHARACTERS - 17]}~{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}"
