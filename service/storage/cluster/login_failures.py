"""Failed logins by client address, counted over all gateways that share the database."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from service.core.dataclass import record
from service.storage.database.caller_schema import login_failures
from service.storage.database.database import Database, SingleOperation
from service.storage.database.prepared_statements import insert

#: Rows are read again for this long after they were written: the clocks of several hosts differ slightly.
_OVERLAP_MS = 10_000
_MAX_ADDRESSES = 10_000

_CHANGED = (
    sa.select(login_failures.c.address, login_failures.c.locked_until_ms, login_failures.c.last_at_ms)
    .where(login_failures.c.last_at_ms > sa.bindparam("since_ms"))
    .order_by(login_failures.c.last_at_ms.desc())
    .limit(_MAX_ADDRESSES)
)


@record
class LoginLimit:
    """More than `max_attempts` failures within `window_ms` lock an address for `lockout_ms`."""

    max_attempts: int
    window_ms: int
    lockout_ms: int


class LoginFailures:
    """Failed logins at all gateways. Times are milliseconds since 1970; methods may block."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._read_until_ms = 0

    def record(self, address: str, at_ms: int, limit: LoginLimit) -> int:
        """Count a failure at `at_ms`; return the end of the lockout, 0 without one. Raises `StoreError`."""
        return self._database.write(_RecordFailure(address, at_ms, limit))

    def clear(self, address: str) -> None:
        """Delete the failures of `address`. Raises `StoreError`."""
        self._database.write(_Clear(address))

    def read_changes(self, now_ms: int) -> Mapping[str, int]:
        """Return the end of the lockout (0 without one) of at least the addresses that failed since the last call.

        Raises `StoreError`.
        """
        # Rows of before the clock was set back must not hide later ones.
        since_ms = min(self._read_until_ms, now_ms) - _OVERLAP_MS
        rows = self._database.fetch(_CHANGED, {"since_ms": since_ms})
        self._read_until_ms = max([self._read_until_ms, *(row.last_at_ms for row in rows)])
        return {row.address: row.locked_until_ms for row in rows}


@dataclass(slots=True, eq=False)
class _RecordFailure(SingleOperation[int]):
    address: str
    at_ms: int
    limit: LoginLimit

    def apply(self, connection: sa.Connection) -> int:
        of_address = login_failures.c.address == self.address
        empty = {"address": self.address, "failed_at_ms": "[]", "locked_until_ms": 0, "last_at_ms": self.at_ms}
        connection.execute(insert(connection.dialect, login_failures).values(empty).on_conflict_do_nothing())
        row = connection.execute(sa.select(login_failures).where(of_address).with_for_update()).one()
        failed, locked_until_ms = self._counted(row)
        values = {"failed_at_ms": json.dumps(failed), "locked_until_ms": locked_until_ms, "last_at_ms": self.at_ms}
        connection.execute(login_failures.update().where(of_address).values(values))
        past = self.at_ms - self.limit.window_ms - self.limit.lockout_ms
        connection.execute(login_failures.delete().where(login_failures.c.last_at_ms < past))
        return locked_until_ms

    def _counted(self, row: sa.Row[Any]) -> tuple[list[int], int]:
        limit = self.limit
        began = self.at_ms - limit.window_ms
        failed = [at for at in json.loads(row.failed_at_ms) if began < at <= self.at_ms + limit.window_ms]
        failed.append(self.at_ms)
        if len(failed) > limit.max_attempts:
            return [], self.at_ms + limit.lockout_ms
        # A lockout that ends much later than one that starts now is from before the clock was set back. One that ends
        # a little later began while this failure waited to be recorded.
        is_stale = row.locked_until_ms > self.at_ms + limit.lockout_ms + _OVERLAP_MS
        return failed, 0 if is_stale else row.locked_until_ms


@dataclass(slots=True, eq=False)
class _Clear(SingleOperation[None]):
    address: str

    def apply(self, connection: sa.Connection) -> None:
        connection.execute(login_failures.delete().where(login_failures.c.address == self.address))
