"""Idempotency keys: the first request with a key claims it for its run, the others with that key get its answer.

A key is kept for a day. A run that failed, was aborted or died lets the next request with its key try again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Self

import sqlalchemy as sa

from service.core.dataclass import record
from service.storage.database.database import Database, SingleOperation
from service.storage.database.prepared import insert
from service.storage.database.schema import claims, runs
from service.storage.runs.records import NewRun, RunState
from service.storage.runs.rows import to_run_row

KEPT_MS = 24 * 60 * 60 * 1000

_PRUNED_AT_ONCE = 500

_OF_KEY = sa.select(claims).where(claims.c.key_hash == sa.bindparam("of_key"))


@record
class IdempotencyKey:
    """A caller's key and what it was sent with: both as hashes, for neither has to be known again."""

    key_hash: str
    fingerprint: str

    @classmethod
    def of(cls, key: str, request: bytes) -> Self:
        """The key `key` of a request; `request` is the same for all that ask the same."""
        return cls(hashlib.sha256(key.encode()).hexdigest(), hashlib.sha256(request).hexdigest())


@record
class Claim:
    """Who has a key: the run that answers it. `is_own` says that it is the run that asked for it."""

    run_id: str
    fingerprint: str
    is_own: bool


class Claims:
    """The keys of all gateways that share a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, key: IdempotencyKey, run: NewRun, gateway_id: str) -> Claim:
        """Claim `key` for `run`, which is then recorded as accepted; or tell which run has it. Raises `StoreError`."""
        return self._database.write(_TakeClaim(key, run, gateway_id))

    def find(self, key: IdempotencyKey) -> Claim | None:
        """Who has `key`; `None` if nobody has. Raises `StoreError`."""
        rows = self._database.fetch(_OF_KEY, {"of_key": key.key_hash})
        return Claim(rows[0].run_id, rows[0].fingerprint, is_own=False) if rows else None

    def prune(self, now_ms: int) -> int:
        """Forget keys that have been kept long enough, a few at a time; how many. Raises `StoreError`."""
        return self._database.write(_Prune(now_ms - KEPT_MS))


@dataclass(slots=True, eq=False)
class _TakeClaim(SingleOperation[Claim]):
    key: IdempotencyKey
    run: NewRun
    gateway_id: str

    def apply(self, connection: sa.Connection) -> Claim:
        own = {
            "key_hash": self.key.key_hash,
            "fingerprint": self.key.fingerprint,
            "run_id": self.run.id,
            "created_at_ms": self.run.accepted_at_ms,
        }
        free = insert(connection.dialect, claims).values(own).on_conflict_do_nothing().returning(claims.c.run_id)
        if connection.execute(free).first() is not None:
            return self._record(connection)
        of_key = claims.c.key_hash == self.key.key_hash
        held = connection.execute(sa.select(claims).where(of_key).with_for_update()).one()
        state = connection.execute(sa.select(runs.c.state).where(runs.c.id == held.run_id)).scalar_one_or_none()
        if held.run_id == self.run.id and state is not None:  # a caller's own name for the run is no two runs' name
            return Claim(held.run_id, held.fingerprint, is_own=self._is_recorded(connection))
        expired = held.created_at_ms <= self.run.accepted_at_ms - KEPT_MS
        failed = state is None or (RunState(state).is_final and state != RunState.OK)
        if not expired and not (failed and held.fingerprint == self.key.fingerprint):
            return Claim(held.run_id, held.fingerprint, is_own=False)
        connection.execute(claims.update().where(of_key).values(own))
        return self._record(connection)

    def _record(self, connection: sa.Connection) -> Claim:
        row = to_run_row(self.run, self.gateway_id, RunState.ACCEPTED)
        new = insert(connection.dialect, runs).values(row).on_conflict_do_nothing().returning(runs.c.id)
        is_own = connection.execute(new).first() is not None or self._is_recorded(connection)
        return Claim(self.run.id, self.key.fingerprint, is_own)

    def _is_recorded(self, connection: sa.Connection) -> bool:
        """Whether this very operation was committed before."""
        if not self.again:
            return False
        row = to_run_row(self.run, self.gateway_id, RunState.ACCEPTED)
        same = (runs.c[name] == value for name, value in row.items())
        return connection.execute(sa.select(runs.c.id).where(*same)).first() is not None


@dataclass(slots=True, eq=False)
class _Prune(SingleOperation[int]):
    before_ms: int

    def apply(self, connection: sa.Connection) -> int:
        old = sa.select(claims.c.key_hash).where(claims.c.created_at_ms <= self.before_ms).limit(_PRUNED_AT_ONCE)
        return connection.execute(claims.delete().where(claims.c.key_hash.in_(old))).rowcount
