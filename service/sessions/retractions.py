"""Runs that end without a turn: taken back before they began to work, or given up because nothing can be stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import sqlalchemy as sa

from service.sessions.records import NewRun, RunState
from service.sessions.statements import FREE_LANE
from service.state.database import Operation, SingleOperation
from service.state.membership import GOING_ON
from service.state.notify import lane_topic, tell_change
from service.state.schema import claims, lanes, runs


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
            FREE_LANE.execute(connection, {"of_key": key, "of_run": one.run.id})
            unwanted = lanes.update().where(lanes.c.session_key == key, lanes.c.wanted_by == one.gateway_id)
            connection.execute(unwanted.values(wanted_by=None))
            connection.execute(claims.delete().where(claims.c.run_id == one.run.id))
            connection.execute(runs.delete().where(runs.c.id == one.run.id, runs.c.state.in_(GOING_ON)))
            tell_change(connection, lane_topic(key))
        return [None] * len(operations)


@dataclass(slots=True, eq=False)
class AbandonRun(SingleOperation[None]):
    """Record that a run failed whose end could not be stored, unless it was after all, and free its session."""

    run: NewRun
    at_ms: int

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
                state=RunState.ERROR.value,
                ended_at_ms=self.at_ms,
                error_code="storage_unavailable",
                error_message="The end of the run could not be stored.",
            )
        )
        tell_change(connection, lane_topic(key))
