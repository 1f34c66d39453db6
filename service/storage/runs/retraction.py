"""Runs that end without a turn: retracted before they started work, or abandoned because nothing can be stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import sqlalchemy as sa

from service.core.errors import GatewayError
from service.storage.cluster.membership import ACTIVE_STATES, IS_ACTIVE
from service.storage.database.database import Operation, SingleOperation
from service.storage.database.notify import notify_change, session_topic
from service.storage.database.schema import claims, gateways, lanes, runs, webhooks
from service.storage.runs.finishing import FinishRun
from service.storage.runs.records import AcceptedRun, RunRecord, RunState
from service.storage.runs.rows import to_error_text, to_usage_columns
from service.storage.runs.statements import RELEASE_LEASE


@dataclass(slots=True, eq=False)
class RetractRun(Operation[None]):
    """Delete the record of a run that ended before it started work, and release its session."""

    run: AcceptedRun
    gateway_id: str

    @property
    def session_key(self) -> str | None:
        """See `Operation`."""
        return self.run.session_key

    @classmethod
    def execute(cls, connection: sa.Connection, operations: Sequence[Self]) -> Sequence[None]:
        """See `Operation`."""
        for one in sorted(operations, key=lambda one: one.run.session_key):
            key = one.run.session_key
            _withdraw(connection, key, one.gateway_id)
            if not one.is_kept(connection):
                RELEASE_LEASE.execute_many(connection, [{"of_key": key, "of_run": one.run.id}])
                connection.execute(claims.delete().where(claims.c.run_id == one.run.id))
                connection.execute(runs.delete().where(runs.c.id == one.run.id))
                connection.execute(webhooks.delete().where(webhooks.c.run_id == one.run.id))
            notify_change(connection, session_topic(key))
        return [None] * len(operations)

    def is_kept(self, connection: sa.Connection) -> bool:
        """Return True if the record under the run's id is kept: it has ended, or it belongs to another run.

        Callers may use a run id twice. After an eviction the record may carry the gateway's old id, which is no
        member's.
        """
        is_of_a_member = runs.c.gateway_id.in_(sa.select(gateways.c.id)).label("is_of_a_member")
        found = sa.select(runs.c.state, runs.c.gateway_id, runs.c.accepted_at_ms, is_of_a_member)
        row = connection.execute(found.where(runs.c.id == self.run.id)).first()
        if row is None:
            return False
        is_of_others = row.gateway_id != self.gateway_id and row.is_of_a_member
        return bool(row.state not in ACTIVE_STATES or is_of_others or row.accepted_at_ms != self.run.accepted_at_ms)


@dataclass(slots=True, eq=False)
class AbandonRun(SingleOperation[None]):
    """Record that an active run ended with `error` and without a turn, and release its session.

    `waiting_gateway_id` is the gateway that waited for the session, if the run had not begun; `lost` is the end of one
    that could not be stored, whose usage is stored nevertheless.
    """

    run: AcceptedRun | RunRecord
    at_ms: int
    error: GatewayError
    waiting_gateway_id: str | None = None
    lost: FinishRun | None = None

    @property
    def session_key(self) -> str | None:
        """See `Operation`."""
        return self.run.session_key

    def apply(self, connection: sa.Connection) -> None:
        """See `SingleOperation`."""
        key = self.run.session_key
        RELEASE_LEASE.execute_many(connection, [{"of_key": key, "of_run": self.run.id}])
        if self.waiting_gateway_id is not None:
            _withdraw(connection, key, self.waiting_gateway_id)
        failed = runs.update().where(runs.c.id == self.run.id, IS_ACTIVE)
        used = {} if self.lost is None else to_usage_columns(self.lost.outcome.usage)
        ended = connection.execute(
            failed.values(
                state=(RunState.ABORTED if self.error.code == "run_aborted" else RunState.ERROR).value,
                ended_at_ms=self.at_ms,
                error_code=self.error.code,
                error_message=to_error_text(self.error.message),
                **used,
            )
        )
        self.usage = None if self.lost is None or not ended.rowcount else self.lost.to_usage()
        notify_change(connection, session_topic(key))


def _withdraw(connection: sa.Connection, session_key: str, gateway_id: str) -> None:
    """Stop waiting for a session."""
    waits = lanes.update().where(lanes.c.session_key == session_key, lanes.c.wanted_by == gateway_id)
    connection.execute(waits.values(wanted_by=None))
