"""Database operations that finish runs; `service.storage.runs.beginning` starts them.

A session lease carries a fencing token that is incremented with every change of holder. A turn is stored only if the
token is unchanged, in the same transaction that releases the lease: completely or not at all, and never by a process
that has lost its lease.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import sqlalchemy as sa

from service.storage.cluster.membership import ACTIVE_STATES
from service.storage.database.daily_usage import UsageEntry
from service.storage.database.database import Operation
from service.storage.database.notify import notify_change, session_topic
from service.storage.database.prepared_statements import to_list
from service.storage.runs.events import add_events, run_topic
from service.storage.runs.records import AcceptedRun, RunOutcome
from service.storage.runs.rows import (
    SessionStart,
    to_branch_rows,
    to_entry_rows,
    to_error_text,
    to_run_row,
    to_summary_row,
    to_usage_columns,
)
from service.storage.runs.stateless_turns import StatelessTurn, fits_one_row
from service.storage.runs.statements import (
    ADD_BRANCH,
    ADD_ENDED_RUN,
    ADD_ENTRY,
    ADD_SESSION,
    ADD_STATELESS_TURN,
    CONTINUED,
    END_RUN,
    EXTEND_SESSION,
    LOCK_LEASES,
    NOTE_FIRST_TURN,
    RELEASE_LEASE,
    REPLACE_SUMMARY,
    RUN_STATES,
    TAKE_STATELESS_TURN,
)
from service.storage.sessions.tree import READ_HEAD, Path, read_tree


@dataclass(slots=True, eq=False)
class FinishRun(Operation[bool]):
    """Store a run's outcome and turn and release its session; returns whether they were stored.

    They are not if the lease was lost (`fence` is the token from `BeginRun`, `None` for a stateless run) or if this
    gateway was evicted. `recorded`: the run already has a row. `session_id` is used if this turn starts the session;
    `notify_peers`: other gateways may be waiting for it.
    """

    run: AcceptedRun
    gateway_id: str
    fence: int | None
    recorded: bool
    outcome: RunOutcome
    at_ms: int
    session_id: str
    notify_peers: bool

    @property
    def session_key(self) -> str | None:
        """See `Operation`."""
        return None if self.fence is None else self.run.session_key

    def to_usage(self) -> UsageEntry | None:
        """Return what the run has used, if it has asked a model."""
        run, outcome = self.run, self.outcome
        if not outcome.calls:
            return None
        return UsageEntry(self.at_ms, run.account, run.user, run.agent_id, outcome.calls, outcome.model)

    @classmethod
    def execute(cls, connection: sa.Connection, operations: Sequence[Self]) -> Sequence[bool]:
        """See `Operation`."""
        alone = [one for one in operations if not one.again and fits_one_row(one.run, one.outcome)]
        for one in alone:
            one.usage = one.to_usage()
        several = [one for one in operations if one not in alone] if len(alone) < len(operations) else []
        others: Sequence[FinishRun] = [*several, *_add_alone(connection, alone)]
        if not others:
            return [True] * len(operations)
        stored = dict(zip(others, _Finishing(connection, others).run(), strict=True))
        return [stored.get(one, True) for one in operations]


class _Finishing:
    """A batch of finished runs in one transaction."""

    def __init__(self, connection: sa.Connection, operations: Sequence[FinishRun]) -> None:
        self._connection = connection
        self._operations = operations
        self._leases: dict[str, Any] = {}

    def run(self) -> list[bool]:
        keys = sorted({one.run.session_key for one in self._operations if one.fence is not None})
        if keys:
            held = LOCK_LEASES.all(self._connection, {"keys": self._to_list(keys)})
            self._leases = {row.session_key: row for row in held}
        unconfirmed = [one.run.id for one in self._operations if self._is_unconfirmed(one)]
        states: dict[str, Any] = {}
        if unconfirmed:
            found = RUN_STATES.all(self._connection, {"ids": self._to_list(unconfirmed)})
            states = {row.id: row for row in found}
        storable = [one for one in self._operations if self._should_store(one, states)]
        self._write(storable)
        stored = set(storable)
        for one in self._operations:
            one.usage = one.to_usage() if one in stored else None
        return [one in stored or _is_stored(one, states) for one in self._operations]

    def _holds_lease(self, one: FinishRun) -> bool:
        lease = self._leases.get(one.run.session_key)
        return lease is not None and (lease.fence, lease.run_id) == (one.fence, one.run.id)

    def _is_unconfirmed(self, one: FinishRun) -> bool:
        return (
            one.again or (one.recorded and one.fence is None) or (one.fence is not None and not self._holds_lease(one))
        )

    def _should_store(self, one: FinishRun, states: dict[str, Any]) -> bool:
        if one.fence is not None:
            return self._holds_lease(one)
        row = states.get(one.run.id)
        if one.recorded:
            return row is not None and row.gateway_id == one.gateway_id and row.state in ACTIVE_STATES
        return row is None

    def _write(self, operations: Sequence[FinishRun]) -> None:
        starts, extensions, branch_rows, rows, summary_rows = [], [], [], [], []
        for one in operations:
            count = self._entry_count(one)
            if one.outcome.summary is not None:
                summary_rows.append(to_summary_row(one.run, one.outcome, self._path_of(one), one.at_ms))
            if not one.outcome.messages:
                continue
            rows += to_entry_rows(one.run, one.outcome, count, one.at_ms)
            if count:
                extensions.append(_extension_parameters(one, count))
                branch_rows += to_branch_rows(one.run, one.outcome, count)
            else:
                starts.append(SessionStart(one.run, one.outcome, one.session_id, one.at_ms).to_row())
        _add_sessions(self._connection, starts)
        EXTEND_SESSION.execute_many(self._connection, extensions)
        ADD_BRANCH.execute_many(self._connection, branch_rows)
        ADD_ENTRY.execute_many(self._connection, rows)
        REPLACE_SUMMARY.execute_many(self._connection, summary_rows)
        ADD_ENDED_RUN.execute_many(self._connection, [_ended_row(one) for one in operations if not one.recorded])
        END_RUN.execute_many(self._connection, [_end_parameters(one) for one in operations if one.recorded])
        add_events(self._connection, {one.run.id: one.outcome.events for one in operations if one.outcome.events})
        held = [one for one in operations if one.fence is not None]
        freed = [{"of_key": one.run.session_key, "of_run": one.run.id} for one in held]
        RELEASE_LEASE.execute_many(self._connection, freed)
        for one in operations:
            if one.notify_peers and one.fence is not None:
                notify_change(self._connection, session_topic(one.run.session_key))
            if one.notify_peers and (one.run.detached or one.outcome.events):
                notify_change(self._connection, run_topic(one.run.id))

    def _entry_count(self, one: FinishRun) -> int:
        lease = self._leases.get(one.run.session_key)
        if lease is not None:
            return lease.entry_count or restore_session(self._connection, one.run.session_key)
        if not one.again:
            return 0  # a new session, unless it was continued while its first answer was being sent
        row = READ_HEAD.first(self._connection, {"of_key": one.run.session_key})
        return 0 if row is None else row.entry_count

    def _path_of(self, one: FinishRun) -> Path:
        """Return the path that will end with the run's messages."""
        tree = read_tree(self._connection, one.run.session_key)
        tree = tree.extended(one.outcome.parent, len(one.outcome.messages))
        return tree.path_to(tree.tip)

    def _to_list(self, texts: Sequence[str]) -> object:
        return to_list(self._connection.dialect, texts)


def _add_alone(connection: sa.Connection, operations: Sequence[FinishRun]) -> list[FinishRun]:
    """Store turns as one row each; return those whose sessions were continued in the meantime."""
    rows = [
        StatelessTurn(one.run, one.gateway_id, one.outcome, one.at_ms, one.session_id).to_values() for one in operations
    ]
    if ADD_STATELESS_TURN.execute_many(connection, rows) == len(rows):
        return []
    keys = to_list(connection.dialect, [one.run.session_key for one in operations])
    continued = {row.session_key for row in CONTINUED.all(connection, {"keys": keys})}
    return [one for one in operations if one.run.session_key in continued]


def restore_session(connection: sa.Connection, key: str) -> int:
    """Move the stateless turn of the session `key`, if there is one, to the rows of a session; return its messages."""
    row = TAKE_STATELESS_TURN.first(connection, {"of_key": key})
    if row is None:
        return 0
    turn = StatelessTurn.from_row(row)
    entry_rows = to_entry_rows(turn.run, turn.outcome, 0, turn.at_ms)
    session = SessionStart(turn.run, turn.outcome, turn.session_id, turn.at_ms)
    _add_sessions(connection, [session.to_row()])
    ADD_ENTRY.execute_many(connection, entry_rows)
    ADD_ENDED_RUN.execute_many(connection, [_ended_row(turn)])
    return len(entry_rows)


def _add_sessions(connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
    ADD_SESSION.execute_many(connection, rows)
    NOTE_FIRST_TURN.execute_many(connection, [{"of_key": row["key"]} for row in rows])


def _is_stored(one: FinishRun, states: dict[str, Any]) -> bool:
    # Committed by an earlier attempt that was not acknowledged.
    row = states.get(one.run.id)
    return row is not None and row.gateway_id == one.gateway_id and row.state == one.outcome.state


def _extension_parameters(one: FinishRun, count: int) -> dict[str, Any]:
    usage = one.outcome.usage
    return {
        "of_key": one.run.session_key,
        "count": count + len(one.outcome.messages),
        "resent": one.outcome.resends,
        "is_branch": bool(to_branch_rows(one.run, one.outcome, count)),
        "at_ms": one.at_ms,
        "new_model": one.outcome.model,
        "run_id": one.run.id,
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "cached": usage.cached_tokens,
        "cost": usage.cost_nano,
    }


def _end_of(one: FinishRun | StatelessTurn) -> dict[str, Any]:
    """Build the values of `END_COLUMNS`."""
    outcome = one.outcome
    # PostgreSQL cannot store NUL, and `RunRecords.find_asking` skips call ids that contain it.
    asked = outcome.asked_call_id if one.run.stateless else None
    message = outcome.error_message
    return {
        "state": outcome.state.value,
        "ended_at_ms": one.at_ms,
        "model": outcome.model,
        "stop_reason": outcome.stop_reason,
        "reply_count": outcome.reply_count,
        **to_usage_columns(outcome.usage),
        "error_code": outcome.error_code,
        "error_message": None if message is None else to_error_text(message),
        "asked_call_id": None if asked is None or "\0" in asked else asked,
        "asked_after": outcome.asked_after,
        "first_output_at_ms": outcome.first_output_at_ms,
        "step": outcome.step,
        "reasoning_tokens": outcome.usage.reasoning_tokens,
    }


def _end_parameters(one: FinishRun) -> dict[str, Any]:
    start = {"of_run": one.run.id, "began_at_ms": one.outcome.started_at_ms}
    return {**start, **{f"new_{name}": value for name, value in _end_of(one).items()}}


def _ended_row(one: FinishRun | StatelessTurn) -> dict[str, Any]:
    start = to_run_row(one.run, one.gateway_id, one.outcome.state)
    return {**start, "started_at_ms": one.outcome.started_at_ms or one.run.accepted_at_ms, **_end_of(one)}
