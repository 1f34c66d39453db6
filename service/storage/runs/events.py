"""Stored events of runs that somebody may come back to, in batches.

An event's number counts units: a text of n characters is n of them, every other event is one. A reader can therefore
go on from any number, however pieces of text were joined. Not stored are the first event and the last ones: they follow
from the run's record, so that a run whose gateway dies has exactly one end, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import orjson
import sqlalchemy as sa

from service.core.concurrency import Event
from service.core.dataclass import record
from service.core.messages import Usage
from service.storage.cluster.membership import ACTIVE_STATES
from service.storage.database.database import Database, Operation
from service.storage.database.notify import notify_change
from service.storage.database.prepared_statements import Dialect, PreparedStatement, insert
from service.storage.database.schema import run_events, runs

#: The most units of a batch, which bounds how far before a number its batch can begin.
BATCH_UNITS = 64 * 1024

_BATCHES_PER_PAGE = 64
_READ_AFTER = (
    sa.select(run_events.c.last, run_events.c.payload)
    .where(
        run_events.c.run_id == sa.bindparam("of_run"),
        run_events.c.first > sa.bindparam("after") - BATCH_UNITS,
        run_events.c.last > sa.bindparam("after"),
    )
    .order_by(run_events.c.first)
    .limit(_BATCHES_PER_PAGE)
)


@record
class LoggedEvent:
    """An event of a run: its number, its kind, and its members as a JSON object, which has both, too."""

    number: int
    kind: str
    data: bytes

    @classmethod
    def of(cls, number: int, kind: str, members: dict[str, Any]) -> Self:
        """Build an event; raises `TypeError` for what JSON cannot hold."""
        return cls(number, kind, orjson.dumps({"type": kind, "sequence_number": number, **members}))

    def after(self, number: int) -> LoggedEvent:
        """Return the part of a text after `number`, which is within it; any other event unchanged."""
        members = orjson.loads(self.data)
        text = members.get("text")
        if not isinstance(text, str) or self.number - len(text) >= number:
            return self
        return LoggedEvent.of(self.number, self.kind, {"text": text[-(self.number - number) :]})


@record
class EventBatch:
    """Consecutive events, the first of which begins with number `first`."""

    first: int
    events: tuple[LoggedEvent, ...]

    def to_row(self, run_id: str) -> dict[str, Any]:
        """Build the row."""
        payload = orjson.dumps([[one.number, one.kind, one.data.decode()] for one in self.events]).decode()
        return {"run_id": run_id, "first": self.first, "last": self.events[-1].number, "payload": payload}


def to_batches(first: int, events: Sequence[LoggedEvent]) -> list[EventBatch]:
    """Divide consecutive events, each shorter than `BATCH_UNITS`, into batches of at most so many."""
    batches: list[EventBatch] = []
    taken: list[LoggedEvent] = []
    for event in events:
        if taken and event.number - first >= BATCH_UNITS:
            batches.append(EventBatch(first, tuple(taken)))
            first, taken = taken[-1].number + 1, []
        taken.append(event)
    return [*batches, EventBatch(first, tuple(taken))] if taken else batches


@record
class RunProgress:
    """A run as it is: what its record shows until its end. Times in ms since the epoch."""

    started_at_ms: int | None
    first_output_at_ms: int | None
    model: str | None
    step: int | None
    tool: str | None
    usage: Usage


class RunEvents:
    """The stored events of all gateways that share a database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[str, Event] = {}

    def append(self, append: AppendEvents) -> bool:
        """Store events and progress; returns False if the run is not this gateway's any more. Raises `StoreError`."""
        stored = self._database.write(append)
        self.announce(append.run_id)
        return stored

    def read_after(self, run_id: str, after: int) -> list[LoggedEvent]:
        """Return stored events after number `after`, in order, not all of them at once. Raises `StoreError`."""
        rows = self._database.fetch(_READ_AFTER, {"of_run": run_id, "after": after})
        stored = (one for row in rows for one in orjson.loads(row.payload))
        found = [LoggedEvent(number, kind, data.encode()) for number, kind, data in stored]
        return [one.after(after) for one in found if one.number > after]

    def announce(self, run_id: str) -> None:
        """Wake those who wait in this process for news of a run."""
        waiting = self._waiting.pop(run_id, None)
        if waiting is not None:
            waiting.set()

    def news_of(self, run_id: str) -> Event:
        """Return an event that is set when this process has stored more of a run; `announce` drops it."""
        return self._waiting.setdefault(run_id, Event())

    def wait_elsewhere(self, run_id: str, seconds: float) -> None:
        """Wait until another process may have stored events of a run, at most `seconds`."""
        self._database.wait_for_change(run_topic(run_id), seconds)


def run_topic(run_id: str) -> str:
    """Topic that is notified when events of a run were stored, or the run has ended."""
    return f"run {run_id}"


def _add_events(dialect: Dialect) -> sa.Executable:
    # A batch may have been committed without acknowledgement; it is stored again with the events that came since.
    add = insert(dialect, run_events)
    updated = {name: add.excluded[name] for name in ("last", "payload")}
    return add.on_conflict_do_update(index_elements=["run_id", "first"], set_=updated)


ADD_EVENTS = PreparedStatement(_add_events, columns=[column.name for column in run_events.c])
_PROGRESS: dict[str, sa.Column[Any]] = {
    name: runs.c[name]
    for name in (
        *("state", "started_at_ms", "first_output_at_ms", "model", "step", "tool"),
        *("input_tokens", "output_tokens", "cached_tokens"),
    )
}
_NOTE_PROGRESS = PreparedStatement(
    lambda _: (
        runs.update()
        .where(
            runs.c.id == sa.bindparam("of_run"),
            runs.c.gateway_id == sa.bindparam("of_gateway"),
            runs.c.state.in_([sa.literal_column(f"'{state}'") for state in ACTIVE_STATES]),
        )
        .values({name: sa.bindparam(f"new_{name}", type_=column.type) for name, column in _PROGRESS.items()})
        .returning(runs.c.id)
    )
)


@dataclass(slots=True, eq=False)
class AppendEvents(Operation[bool]):
    """Store events and progress of a run that has not ended; `notify_peers`: others may follow it."""

    run_id: str
    gateway_id: str
    batches: Sequence[EventBatch]
    progress: RunProgress
    notify_peers: bool

    @classmethod
    def execute(cls, connection: sa.Connection, operations: Sequence[Self]) -> Sequence[bool]:
        """See `Operation`."""
        # A fixed order, so that two gateways cannot deadlock.
        noted = {
            id(one): _NOTE_PROGRESS.execute(connection, one.to_parameters()).first() is not None
            for one in sorted(operations, key=lambda one: one.run_id)
        }
        own = [one for one in operations if noted[id(one)]]
        add_events(connection, {one.run_id: one.batches for one in own})
        for one in own:
            if one.notify_peers:
                notify_change(connection, run_topic(one.run_id))
        return [noted[id(one)] for one in operations]

    def to_parameters(self) -> dict[str, Any]:
        """Build the parameters of the update of the run's record."""
        progress, usage = self.progress, self.progress.usage
        values = {
            "state": ACTIVE_STATES[0] if progress.started_at_ms is None else ACTIVE_STATES[1],
            "started_at_ms": progress.started_at_ms,
            "first_output_at_ms": progress.first_output_at_ms,
            "model": progress.model,
            "step": progress.step,
            "tool": progress.tool,
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cached_tokens": usage.cached_tokens,
        }
        named = {f"new_{name}": value for name, value in values.items()}
        return {"of_run": self.run_id, "of_gateway": self.gateway_id, **named}


def add_events(connection: sa.Connection, batches: dict[str, Sequence[EventBatch]]) -> None:
    """Insert batches of events by run, in the transaction of `connection`."""
    rows = [batch.to_row(run_id) for run_id, several in batches.items() for batch in several]
    ADD_EVENTS.execute_many(connection, rows)
