"""Wrong secrets by client address, counted over all gateways that share the database."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from service.core.dataclass import record
from service.storage.database.database import Database, SingleOperation
from service.storage.database.prepared import insert
from service.storage.database.schema import login_failures

#: Rows are read again for so long after they were written: the clocks of several hosts are not quite one.
_OVERLAP_MS = 10_000
_MOST_ADDRESSES = 10_000

_CHANGED = (
    sa.select(login_failures.c.address, login_failures.c.locked_until_ms, login_failures.c.last_at_ms)
    .where(login_failures.c.last_at_ms > sa.bindparam("since_ms"))
    .order_by(login_failures.c.last_at_ms.desc())
    .limit(_MOST_ADDRESSES)
)


@record
class Allowance:
    """More than `max_attempts` failures within `window_ms` lock an address for `lockout_ms`."""

    max_attempts: int
    window_ms: int
    lockout_ms: int


class LoginFailures:
    """The failures that all gateways have seen. Times are milliseconds since 1970; every method may wait."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._read_until_ms = 0

    def record(self, address: str, at_ms: int, allowance: Allowance) -> int:
        """Count a failure at `at_ms`; until when the address is locked, 0 if it is not. Raises `StoreError`."""
        return self._database.write(_RecordFailure(address, at_ms, allowance))

    def forget(self, address: str) -> None:
        """Forget the failures of `address`. Raises `StoreError`."""
        self._database.write(_Forget(address))

    def read_news(self) -> Mapping[str, int]:
        """Until when each address is locked, 0 if it is not, of those that have failed since the last call, at least.

        Raises `StoreError`.
        """
        rows = self._database.fetch(_CHANGED, {"since_ms": self._read_until_ms - _OVERLAP_MS})
        self._read_until_ms = max([self._read_until_ms, *(row.last_at_ms for row in rows)])
        return {row.address: row.locked_until_ms for row in rows}


@dataclass(slots=True, eq=False)
class _RecordFailure(SingleOperation[int]):
    address: str
    at_ms: int
    allowance: Allowance

    def apply(self, connection: sa.Connection) -> int:
        of_address = login_failures.c.address == self.address
        empty = {"address": self.address, "failed_at_ms": "[]", "locked_until_ms": 0, "last_at_ms": self.at_ms}
        connection.execute(insert(connection.dialect, login_failures).values(empty).on_conflict_do_nothing())
        row = connection.execute(sa.select(login_failures).where(of_address).with_for_update()).one()
        failed, locked_until_ms = self._counted(row)
        values = {"failed_at_ms": json.dumps(failed), "locked_until_ms": locked_until_ms, "last_at_ms": self.at_ms}
        connection.execute(login_failures.update().where(of_address).values(values))
        past = self.at_ms - self.allowance.window_ms - self.allowance.lockout_ms
        connection.execute(login_failures.delete().where(login_failures.c.last_at_ms < past))
        return locked_until_ms

    def _counted(self, row: sa.Row[Any]) -> tuple[list[int], int]:
        allowance = self.allowance
        began = self.at_ms - allowance.window_ms
        failed = [at for at in json.loads(row.failed_at_ms) if began < at <= self.at_ms + allowance.window_ms]
        failed.append(self.at_ms)
        if len(failed) > allowance.max_attempts:
            return [], self.at_ms + allowance.lockout_ms
        return failed, row.locked_until_ms


@dataclass(slots=True, eq=False)
class _Forget(SingleOperation[None]):
    address: str

    def apply(self, connection: sa.Connection) -> None:
        connection.execute(login_failures.delete().where(login_failures.c.address == self.address))
