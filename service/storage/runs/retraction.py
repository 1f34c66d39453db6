"""Runs that end without a turn: taken back before they began to work, or given up because nothing can be stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import sqlalchemy as sa

from service.core.errors import GatewayError
from service.storage.cluster.membership import GOING_ON
from service.storage.database.database import Operation, SingleOperation
from service.storage.database.notify import lane_topic, tell_change
from service.storage.database.schema import claims, gateways, lanes, runs
from service.storage.runs.records import NewRun, RunRecord, RunState
from service.storage.runs.statements import FREE_LANE


@dataclass(slots=True, eq=False)
class RetractRun(Operation[None]):
    """Undo what was recorded of a run that is refused or given up before it began to work, and free its session."""

    run: NewRun
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
            unwanted = lanes.update().where(lanes.c.session_key == key, lanes.c.wanted_by == one.gateway_id)
            connection.execute(unwanted.values(wanted_by=None))
            if not one.stays(connection):
                FREE_LANE.execute(connection, {"of_key": key, "of_run": one.run.id})
                connection.execute(claims.delete().where(claims.c.run_id == one.run.id))
                connection.execute(runs.delete().where(runs.c.id == one.run.id))
            tell_change(connection, lane_topic(key))
        return [None] * len(operations)

    def stays(self, connection: sa.Connection) -> bool:
        """Whether what is recorded under the run's id stays: it has ended, or it is another run's.

        A caller may name two runs alike. A gateway that was taken for dead has another id by now; then its old one is
        nobody's.
        """
        is_of_a_member = runs.c.gateway_id.in_(sa.select(gateways.c.id)).label("is_of_a_member")
        found = sa.select(runs.c.state, runs.c.gateway_id, runs.c.accepted_at_ms, is_of_a_member)
        row = connection.execute(found.where(runs.c.id == self.run.id)).first()
        if row is None:
            return False
        is_of_others = row.gateway_id != self.gateway_id and row.is_of_a_member
        return bool(row.state not in GOING_ON or is_of_others or row.accepted_at_ms != self.run.accepted_at_ms)


@dataclass(slots=True, eq=False)
class AbandonRun(SingleOperation[None]):
    """Record that a run ended with `error` of which no more can be stored, unless it was, and free its session."""

    run: NewRun | RunRecord
    at_ms: int
    error: GatewayError

    @property
    def session_key(self) -> str | None:
        """See `Operation`."""
        return self.run.session_key

    def apply(self, connection: sa.Connection) -> None:
        """See `SingleOperation`."""
        key = self.run.session_key
        FREE_LANE.execute(connection, {"of_key": key, "of_run": self.run.id})
        failed = runs.update().where(runs.c.id == self.run.id, runs.c.state.in_(GOING_ON))
        connection.execute(
            failed.values(
                state=(RunState.ABORTED if self.error.code == "run_aborted" else RunState.ERROR).value,
                ended_at_ms=self.at_ms,
                error_code=self.error.code,
                error_message=self.error.message,
            )
        )
        tell_change(connection, lane_topic(key))
