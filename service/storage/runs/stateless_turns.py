"""The turn of a stateless request as one row: `stateless_turns` in the schema."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Self

import sqlalchemy as sa

from service.core.dataclass import record
from service.storage.database.database import Database
from service.storage.database.schema import stateless_turns
from service.storage.message_codec import from_payloads, to_payloads
from service.storage.runs.records import AcceptedRun, Protocol, RunOutcome, RunState, to_usage
from service.storage.runs.rows import to_entry_rows, to_title
from service.storage.sessions.keys import owner_of

_OF_KEY = sa.select(stateless_turns).where(stateless_turns.c.session_key == sa.bindparam("of_key"))


def fits_one_row(run: AcceptedRun, outcome: RunOutcome) -> bool:
    """Return True if the turn needs no row in `runs`: nothing will search for it by its key, id, call or error."""
    is_plain = outcome.state is RunState.OK and outcome.asked_call_id is None and outcome.summary is None
    is_found = run.is_recorded_early or run.response is not None
    return run.stateless and not is_found and is_plain and bool(outcome.messages)


@record
class StatelessTurn:
    """A stateless run that was answered, with the session and the messages it started."""

    run: AcceptedRun
    gateway_id: str
    outcome: RunOutcome
    at_ms: int
    session_id: str

    def to_values(self) -> tuple[Any, ...]:
        """Return the values of the columns in their order, without the id. Raises `StoreError` for a lone surrogate."""
        run, outcome, usage = self.run, self.outcome, self.outcome.usage
        return (
            run.session_key,
            run.id,
            self.session_id,
            run.agent_id,
            self.gateway_id,
            str(run.protocol),
            run.accepted_at_ms,
            self.at_ms,
            to_title(outcome.messages),
            outcome.model,
            outcome.stop_reason,
            len(outcome.messages),
            outcome.reply_count,
            usage.input_tokens,
            usage.output_tokens,
            usage.cached_tokens,
            usage.cost_nano,
            to_payloads(outcome.messages),
            owner_of(run.session_key),
        )

    @classmethod
    def from_row(cls, row: sa.Row[Any]) -> Self:
        """Read a row. Raises `StoreError` for messages that a newer version has written."""
        run = AcceptedRun(
            row.run_id, row.session_key, row.agent_id, Protocol(row.door), row.accepted_at_ms, stateless=True
        )
        outcome = RunOutcome(
            RunState.OK,
            to_usage(row),
            row.model,
            row.stop_reason,
            messages=from_payloads(row.messages),
            reply_count=row.reply_count,
        )
        return cls(run, row.gateway_id, outcome, row.ended_at_ms, row.session_id)

    def to_entries(self) -> list[Any]:
        """Return its messages like rows of `entries`, in order."""
        return [SimpleNamespace(**row) for row in to_entry_rows(self.run, self.outcome, 0, self.at_ms)]


def find_stateless_turn(database: Database, key: str) -> StatelessTurn | None:
    """Return the turn of the session `key`, unless it was continued. Raises `StoreError`."""
    rows = database.fetch(_OF_KEY, {"of_key": key})
    return StatelessTurn.from_row(rows[0]) if rows else None
