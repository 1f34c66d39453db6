"""How a run takes its session and gives it back with a turn: each step one operation of the database.

A session is held with a fence, a number that grows with every change of hands. What a run writes is stored only while
the session's fence is still its own, in the same transaction that frees the session: a turn is stored whole or not at
all, and by nobody who lost the session meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

import sqlalchemy as sa

from service.storage.cluster.membership import GOING_ON
from service.storage.database.database import Operation
from service.storage.database.notify import lane_topic, tell_change
from service.storage.database.prepared import to_list
from service.storage.runs.records import NewRun, RunOutcome, RunState
from service.storage.runs.rows import SessionStart, to_entry_rows, to_run_row, to_summary_row
from service.storage.runs.statements import (
    ACCEPT_RUN,
    ADD_ENDED_RUN,
    ADD_ENTRY,
    ADD_SESSION,
    BEGIN_RUN,
    END_RUN,
    ENTRY_COUNT,
    EXTEND_SESSION,
    FREE_LANE,
    HOLD_LANES,
    MEMBER,
    REPLACE_SUMMARY,
    RUN_STATES,
    TAKE_LANE,
    WANT_LANE,
)


@dataclass(slots=True, eq=False)
class AcceptRun(Operation[None]):
    """Record a run that has to wait for its session."""

    run: NewRun
    gateway_id: str

    @classmethod
    def execute(cls, connection: sa.Connection, operations: Sequence[Self]) -> Sequence[None]:
        """See `Operation`."""
        _record_accepted(connection, operations)
        return [None] * len(operations)


class Refusal(Enum):
    """Why a session could not be taken.

    Another run holds it or is next; this gateway counts as dead; the run itself was ended by others while it waited.
    """

    BUSY = "busy"
    EXPELLED = "expelled"
    OVER = "over"


@dataclass(slots=True, eq=False)
class BeginRun(Operation["int | Refusal"]):
    """Take the run's session and record that it runs; the result is the session's fence, or why it was not taken.

    A gateway that is refused is noted as the next, and others leave the session to it, unless they are `impatient`;
    its run is recorded as accepted, so that others can see it and end it.
    """

    run: NewRun
    gateway_id: str
    at_ms: int
    impatient: bool = False

    @property
    def session_key(self) -> str | None:
        """See `Operation`."""
        return self.run.session_key

    @classmethod
    def execute(cls, connection: sa.Connection, operations: Sequence[Self]) -> Sequence[int | Refusal]:
        """See `Operation`."""
        members = {
            own_id: MEMBER.execute(connection, {"own_id": own_id}).first() is not None
            for own_id in {one.gateway_id for one in operations}
        }
        results: dict[int, int | Refusal] = {}
        # Always in the same order, so that two gateways never wait for one another.
        for one in sorted(operations, key=lambda one: one.run.session_key):
            results[id(one)] = one.take(connection) if members[one.gateway_id] else Refusal.EXPELLED
        begun = [one for one in operations if isinstance(results[id(one)], int)]
        for over in _record_beginnings(connection, begun):
            FREE_LANE.execute(connection, {"of_key": over.run.session_key, "of_run": over.run.id})
            results[id(over)] = Refusal.OVER
        _record_accepted(connection, [one for one in operations if results[id(one)] is Refusal.BUSY])
        return [results[id(one)] for one in operations]

    def take(self, connection: sa.Connection) -> int | Refusal:
        """Take the session, or say that it is wanted."""
        key = self.run.session_key
        wish = {
            "session_key": key,
            "run_id": self.run.id,
            "gateway_id": self.gateway_id,
            "impatient": self.impatient,
        }
        row = TAKE_LANE.execute(connection, wish).first()
        if row is not None:
            return int(row.fence)
        WANT_LANE.execute(connection, {"of_key": key, "own_id": self.gateway_id})
        return Refusal.BUSY


def _record_accepted(connection: sa.Connection, operations: Sequence[AcceptRun | BeginRun]) -> None:
    rows = [to_run_row(one.run, one.gateway_id, RunState.ACCEPTED) for one in operations]
    ACCEPT_RUN.execute_many(connection, rows)


def _record_beginnings(connection: sa.Connection, operations: Sequence[BeginRun]) -> list[BeginRun]:
    """Record that runs run; returns those that were ended meanwhile, as a dead gateway's runs are."""
    over = []
    for one in operations:
        row = {**to_run_row(one.run, one.gateway_id, RunState.RUNNING), "started_at_ms": one.at_ms}
        if BEGIN_RUN.execute(connection, row).first() is None:
            over.append(one)
    return over


@dataclass(slots=True, eq=False)
class FinishRun(Operation[bool]):
    """Store a run's end and its turn and free its session; whether it was stored.

    It was not if the session changed hands meanwhile (`fence` is what `BeginRun` gave, `None` for a stateless run), or
    if others took this gateway for dead. `recorded` says that the run has a row already. `session_id` is for a session
    that begins with this turn; `tells_others` that other gateways may wait for this one.
    """

    run: NewRun
    gateway_id: str
    fence: int | None
    recorded: bool
    outcome: RunOutcome
    at_ms: int
    session_id: str
    tells_others: bool

    @property
    def session_key(self) -> str | None:
        """See `Operation`."""
        return None if self.fence is None else self.run.session_key

    @classmethod
    def execute(cls, connection: sa.Connection, operations: Sequence[Self]) -> Sequence[bool]:
        """See `Operation`."""
        return _Finishing(connection, operations).run()


class _Finishing:
    """One transaction's share of finished runs."""

    def __init__(self, connection: sa.Connection, operations: Sequence[FinishRun]) -> None:
        self._connection = connection
        self._operations = operations
        self._lanes: dict[str, Any] = {}

    def run(self) -> list[bool]:
        keys = sorted({one.run.session_key for one in self._operations if one.fence is not None})
        if keys:
            held = HOLD_LANES.execute(self._connection, {"keys": self._to_list(keys)})
            self._lanes = {row.session_key: row for row in held}
        doubtful = [one.run.id for one in self._operations if self._is_doubtful(one)]
        states: dict[str, Any] = {}
        if doubtful:
            found = RUN_STATES.execute(self._connection, {"ids": self._to_list(doubtful)})
            states = {row.id: row for row in found}
        to_store = [one for one in self._operations if self._is_to_store(one, states)]
        self._write(to_store)
        stored = set(map(id, to_store))
        return [id(one) in stored or _is_stored(one, states) for one in self._operations]

    def _holds(self, one: FinishRun) -> bool:
        lane = self._lanes.get(one.run.session_key)
        return lane is not None and (lane.fence, lane.run_id) == (one.fence, one.run.id)

    def _is_doubtful(self, one: FinishRun) -> bool:
        return one.again or (one.recorded and one.fence is None) or (one.fence is not None and not self._holds(one))

    def _is_to_store(self, one: FinishRun, states: dict[str, Any]) -> bool:
        if one.fence is not None:
            return self._holds(one)
        row = states.get(one.run.id)
        if one.recorded:
            return row is not None and row.gateway_id == one.gateway_id and row.state in GOING_ON
        return row is None

    def _write(self, operations: Sequence[FinishRun]) -> None:
        starts, extensions, rows, summary_rows = [], [], [], []
        for one in operations:
            count = self._entry_count(one)
            if one.outcome.messages:
                new = to_entry_rows(one.run, one.outcome, count, one.at_ms)
                rows += new
                if count:
                    extensions.append(_extension(one, count + len(new)))
                else:
                    starts.append(SessionStart(one.run, one.outcome, one.session_id, one.at_ms).to_row())
                count += len(new)
            if one.outcome.summary is not None:
                summary_rows.append(to_summary_row(one.run, one.outcome, count, one.at_ms))
        ADD_SESSION.execute_many(self._connection, starts)
        EXTEND_SESSION.execute_many(self._connection, extensions)
        ADD_ENTRY.execute_many(self._connection, rows)
        REPLACE_SUMMARY.execute_many(self._connection, summary_rows)
        ADD_ENDED_RUN.execute_many(self._connection, [_ended_row(one) for one in operations if not one.recorded])
        END_RUN.execute_many(self._connection, [_ending(one) for one in operations if one.recorded])
        held = [one for one in operations if one.fence is not None]
        freed = [{"of_key": one.run.session_key, "of_run": one.run.id} for one in held]
        FREE_LANE.execute_many(self._connection, freed)
        for one in held:
            if one.tells_others:
                tell_change(self._connection, lane_topic(one.run.session_key))

    def _entry_count(self, one: FinishRun) -> int:
        lane = self._lanes.get(one.run.session_key)
        if lane is not None:
            return lane.entry_count or 0
        if not one.again:
            return 0  # a session to itself, unless somebody continued it while its first answer was told
        row = ENTRY_COUNT.execute(self._connection, {"of_key": one.run.session_key}).first()
        return 0 if row is None else row.entry_count

    def _to_list(self, texts: Sequence[str]) -> object:
        return to_list(self._connection.dialect, texts)


def _is_stored(one: FinishRun, states: dict[str, Any]) -> bool:
    # Committed by an earlier attempt that nobody heard of.
    row = states.get(one.run.id)
    return row is not None and row.gateway_id == one.gateway_id and row.state == one.outcome.state


def _extension(one: FinishRun, count: int) -> dict[str, Any]:
    usage = one.outcome.usage
    return {
        "of_key": one.run.session_key,
        "count": count,
        "at_ms": one.at_ms,
        "new_model": one.outcome.model,
        "run_id": one.run.id,
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "cached": usage.cached_tokens,
    }


def _end_of(one: FinishRun) -> dict[str, Any]:
    """The values of `END_COLUMNS`."""
    outcome = one.outcome
    # PostgreSQL stores no NUL, nor is a call looked for whose id has one (`RunRecords.find_asking`).
    asked = outcome.asked_call_id if one.run.stateless else None
    message = outcome.error_message
    return {
        "state": outcome.state.value,
        "ended_at_ms": one.at_ms,
        "model": outcome.model,
        "stop_reason": outcome.stop_reason,
        "reply_count": outcome.reply_count,
        "input_tokens": outcome.usage.input_tokens,
        "output_tokens": outcome.usage.output_tokens,
        "cached_tokens": outcome.usage.cached_tokens,
        "error_code": outcome.error_code,
        "error_message": None if message is None else message.replace("\0", "\ufffd"),
        "asked_call_id": None if asked is None or "\0" in asked else asked,
        "asked_after": outcome.asked_after,
    }


def _ending(one: FinishRun) -> dict[str, Any]:
    return {"of_run": one.run.id, **{f"new_{name}": value for name, value in _end_of(one).items()}}


def _ended_row(one: FinishRun) -> dict[str, Any]:
    start = to_run_row(one.run, one.gateway_id, one.outcome.state)
    return {**start, "started_at_ms": one.run.accepted_at_ms, **_end_of(one)}
