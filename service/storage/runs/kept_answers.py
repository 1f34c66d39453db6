"""Answers without a run, which requests with the same idempotency key get again, and their usage.

They are retained for a day, as idempotency keys are.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import sqlalchemy as sa

from service.core.dataclass import record
from service.storage.database.daily_usage import UsageEntry
from service.storage.database.database import Database, SingleOperation
from service.storage.database.prepared_statements import insert
from service.storage.database.schema import kept_answers
from service.storage.runs.idempotency import RETENTION_MS, IdempotencyKey

_PRUNE_BATCH = 100
_OF_KEY = sa.select(kept_answers).where(kept_answers.c.key_hash == sa.bindparam("of_key"))


@record
class KeptAnswer:
    """An answer, and the fingerprint of its request."""

    fingerprint: str
    answer: str


class KeptAnswers:
    """The answers of all gateways that share a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, key: IdempotencyKey, now_ms: int) -> KeptAnswer | None:
        """Return the answer of an earlier request with the key, whatever it asked for. Raises `StoreError`."""
        rows = self._database.fetch(_OF_KEY, {"of_key": key.key_hash})
        fresh = [row for row in rows if row.created_at_ms > now_ms - RETENTION_MS]
        return KeptAnswer(fresh[0].fingerprint, fresh[0].answer) if fresh else None

    def keep(self, key: IdempotencyKey, answer: str, now_ms: int, usage: UsageEntry) -> None:
        """Store an answer, unless another process has stored one with the key, and its usage. Raises `StoreError`."""
        self._database.write(_Keep(key, answer, now_ms, usage))

    def count(self, usage: UsageEntry, now_ms: int) -> None:
        """Store the usage of an answer that is not kept, by a key of its own. Raises `StoreError`."""
        self.keep(IdempotencyKey.of(secrets.token_hex(), b""), "", now_ms, usage)

    def prune(self, now_ms: int) -> int:
        """Delete a batch of expired answers; return their number. Raises `StoreError`."""
        return self._database.write(_Prune(now_ms - RETENTION_MS))


@dataclass(slots=True, eq=False)
class _Keep(SingleOperation[None]):
    key: IdempotencyKey
    answer: str
    now_ms: int
    spent: UsageEntry

    def apply(self, connection: sa.Connection) -> None:
        expired = kept_answers.c.created_at_ms <= self.now_ms - RETENTION_MS
        connection.execute(kept_answers.delete().where(kept_answers.c.key_hash == self.key.key_hash, expired))
        row = {
            "key_hash": self.key.key_hash,
            "fingerprint": self.key.fingerprint,
            "answer": self.answer,
            "created_at_ms": self.now_ms,
        }
        added = connection.execute(insert(connection.dialect, kept_answers).values(row).on_conflict_do_nothing())
        is_counted = self.again and not added.rowcount and self._is_stored(connection)
        self.usage = None if is_counted else self.spent

    def _is_stored(self, connection: sa.Connection) -> bool:
        """Return True if an earlier attempt was committed without an acknowledgement."""
        row = connection.execute(_OF_KEY, {"of_key": self.key.key_hash}).one()
        return (row.answer, row.created_at_ms) == (self.answer, self.now_ms)


@dataclass(slots=True, eq=False)
class _Prune(SingleOperation[int]):
    before_ms: int

    def apply(self, connection: sa.Connection) -> int:
        old = sa.select(kept_answers.c.key_hash).where(kept_answers.c.created_at_ms <= self.before_ms)
        of_batch = kept_answers.c.key_hash.in_(old.limit(_PRUNE_BATCH))
        return connection.execute(kept_answers.delete().where(of_batch)).rowcount
