"""Idempotency keys: the first request with a key claims it for its run; later ones get that run's answer.

Keys are retained for a day. A failed, aborted or interrupted run releases its key to the next identical request.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Self

import sqlalchemy as sa

from service.core.dataclass import record
from service.storage.database.database import Database, SingleOperation
from service.storage.database.prepared_statements import insert
from service.storage.database.schema import claims, runs
from service.storage.database.stateless_views import stateless_runs
from service.storage.runs.records import AcceptedRun, RunState
from service.storage.runs.rows import to_run_row, to_webhook_rows
from service.storage.runs.statements import ADD_WEBHOOK

RETENTION_MS = 24 * 60 * 60 * 1000

_PRUNE_BATCH = 500

_OF_KEY = sa.select(claims).where(claims.c.key_hash == sa.bindparam("of_key"))


@record
class IdempotencyKey:
    """Hashes of a caller's key and of the request it was sent with."""

    key_hash: str
    fingerprint: str

    @classmethod
    def of(cls, key: str, request: bytes) -> Self:
        """Hash `key` and the canonical form `request` of its request."""
        return cls(hashlib.sha256(key.encode()).hexdigest(), hashlib.sha256(request).hexdigest())

    def owned_by(self, owner: str | None) -> IdempotencyKey:
        """Return the key as `owner` uses it, so that the keys of two owners never meet."""
        if owner is None:
            return self
        return IdempotencyKey(hashlib.sha256(f"{owner}\0{self.key_hash}".encode()).hexdigest(), self.fingerprint)


@record
class Claim:
    """The run that holds a key. `is_own`: the claiming run got it."""

    run_id: str
    fingerprint: str
    is_own: bool


class IdempotencyStore:
    """Idempotency keys of all gateways that share a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, key: IdempotencyKey, run: AcceptedRun, gateway_id: str) -> Claim:
        """Claim `key` and record `run` as accepted, or return the claim of another run. Raises `StoreError`."""
        return self._database.write(_ClaimKey(key, run, gateway_id))

    def find(self, key: IdempotencyKey) -> Claim | None:
        """Return the claim on `key`, if any. Raises `StoreError`."""
        rows = self._database.fetch(_OF_KEY, {"of_key": key.key_hash})
        return Claim(rows[0].run_id, rows[0].fingerprint, is_own=False) if rows else None

    def prune(self, now_ms: int) -> int:
        """Delete a batch of expired keys; return their number. Raises `StoreError`."""
        return self._database.write(_Prune(now_ms - RETENTION_MS))


@dataclass(slots=True, eq=False)
class _ClaimKey(SingleOperation[Claim]):
    key: IdempotencyKey
    run: AcceptedRun
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
        if held.run_id == self.run.id and state is not None:  # the same caller-chosen run id again
            return Claim(held.run_id, held.fingerprint, is_own=self._is_recorded(connection))
        expired = held.created_at_ms <= self.run.accepted_at_ms - RETENTION_MS
        failed = state is None or (RunState(state).is_final and state != RunState.OK)
        if not expired and not (failed and held.fingerprint == self.key.fingerprint):
            return Claim(held.run_id, held.fingerprint, is_own=False)
        connection.execute(claims.update().where(of_key).values(own))
        return self._record(connection)

    def _record(self, connection: sa.Connection) -> Claim:
        if connection.execute(sa.select(stateless_runs.c.id).where(stateless_runs.c.id == self.run.id)).first():
            return Claim(self.run.id, self.key.fingerprint, is_own=False)  # a caller-chosen id that is taken
        row = to_run_row(self.run, self.gateway_id, RunState.QUEUED)
        new = insert(connection.dialect, runs).values(row).on_conflict_do_nothing().returning(runs.c.id)
        is_own = connection.execute(new).first() is not None or self._is_recorded(connection)
        if is_own:
            ADD_WEBHOOK.execute_many(connection, to_webhook_rows([self.run]))
        return Claim(self.run.id, self.key.fingerprint, is_own)

    def _is_recorded(self, connection: sa.Connection) -> bool:
        """Return True if an earlier attempt of this operation was committed."""
        if not self.again:
            return False
        row = to_run_row(self.run, self.gateway_id, RunState.QUEUED)
        same = (runs.c[name] == value for name, value in row.items())
        return connection.execute(sa.select(runs.c.id).where(*same)).first() is not None


@dataclass(slots=True, eq=False)
class _Prune(SingleOperation[int]):
    before_ms: int

    def apply(self, connection: sa.Connection) -> int:
        old = sa.select(claims.c.key_hash).where(claims.c.created_at_ms <= self.before_ms).limit(_PRUNE_BATCH)
        return connection.execute(claims.delete().where(claims.c.key_hash.in_(old))).rowcount
