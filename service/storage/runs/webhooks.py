"""Webhooks of runs: their rows are claimed by the process that sends them, so that no other sends them meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from service.core.dataclass import record
from service.storage.cluster.membership import ACTIVE_STATES
from service.storage.database.database import Database, SingleOperation
from service.storage.database.schema import runs, webhooks

_HAS_ENDED = sa.exists().where(runs.c.id == webhooks.c.run_id, runs.c.state.not_in(ACTIVE_STATES))
_DUE = (
    sa.select(webhooks.c.run_id)
    .where(webhooks.c.due_at_ms <= sa.bindparam("now_ms"), _HAS_ENDED)
    .order_by(webhooks.c.due_at_ms)
    .limit(1)
)


@record
class DueWebhook:
    """The end of a run that this process has to send now, for the `attempts`th time."""

    run_id: str
    url: str
    secret: str
    attempts: int


class Webhooks:
    """The webhooks of all gateways that share a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, now_ms: int, until_ms: int, limit: int) -> Sequence[DueWebhook]:
        """Return at most `limit` webhooks that are due, which no other process gets before `until_ms`.

        Raises `StoreError`.
        """
        if not self._database.fetch(_DUE, {"now_ms": now_ms}):
            return ()
        return self._database.write(_Claim(now_ms, until_ms, limit))

    def put_off(self, webhook: DueWebhook, due_at_ms: int | None) -> None:
        """Make a webhook due again, or forget it if `due_at_ms` is `None`, unless it was claimed again since.

        Raises `StoreError`.
        """
        self._database.write(_PutOff(webhook, due_at_ms))


@dataclass(slots=True, eq=False)
class _Claim(SingleOperation[Sequence[DueWebhook]]):
    now_ms: int
    until_ms: int
    limit: int

    def apply(self, connection: sa.Connection) -> Sequence[DueWebhook]:
        """See `SingleOperation`."""
        due = sa.select(webhooks.c.run_id).where(webhooks.c.due_at_ms <= self.now_ms, _HAS_ENDED)
        locked = due.order_by(webhooks.c.due_at_ms).limit(self.limit).with_for_update(of=webhooks, skip_locked=True)
        found = connection.execute(locked).scalars().all()
        claimed = webhooks.update().where(webhooks.c.run_id.in_(found))
        rows = connection.execute(
            claimed.values(due_at_ms=self.until_ms, attempts=webhooks.c.attempts + 1).returning(
                webhooks.c.run_id, webhooks.c.url, webhooks.c.secret, webhooks.c.attempts
            )
        )
        return tuple(DueWebhook(*row) for row in rows)


@dataclass(slots=True, eq=False)
class _PutOff(SingleOperation[None]):
    webhook: DueWebhook
    due_at_ms: int | None

    def apply(self, connection: sa.Connection) -> None:
        """See `SingleOperation`."""
        own = webhooks.c.run_id == self.webhook.run_id, webhooks.c.attempts == self.webhook.attempts
        if self.due_at_ms is None:
            connection.execute(webhooks.delete().where(*own))
        else:
            connection.execute(webhooks.update().where(*own).values(due_at_ms=self.due_at_ms))
