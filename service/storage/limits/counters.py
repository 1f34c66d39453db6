"""The use of limits by all gateways that share a database: one row per subject, changed under its lock.

A gateway asks for runs that wait, and for a few more to admit on its own for a short time, the lease. What is leased
counts from the moment of the lease until a window after its end, so that no sliding window has more than the limit,
whenever it was used. Times are those of the database's clock: the clocks of several hosts differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import orjson
import sqlalchemy as sa

from service.core.dataclass import record
from service.core.rate_limits import RateLimits
from service.storage.database.caller_schema import limit_usage
from service.storage.database.database import Database, Operation, SingleOperation
from service.storage.database.prepared_statements import PreparedStatement, insert, is_among, to_list
from service.storage.database.schema import gateways
from service.storage.limits.sliding_log import SlidingLog

Dialect = sa.engine.interfaces.Dialect

WINDOW_MS = 60_000

#: At most this part of a limit is leased at once, so that what one gateway leaves unused is little for the others.
_LEASED_PART = 100

#: A refusal because of runs at once: their ends cannot be foreseen.
_RUNS_RETRY_MS = 1_000

_PRUNE_BATCH = 500
_LONGEST_RUN_MS = 7 * 24 * 3600 * 1000

_COLUMNS = (limit_usage.c.subject, limit_usage.c.requests, limit_usage.c.tokens, limit_usage.c.runs)
_LOCK = PreparedStatement(
    lambda dialect: (
        sa.select(*_COLUMNS)
        .where(is_among(dialect, limit_usage.c.subject, "subjects"))
        .order_by(limit_usage.c.subject)
        .with_for_update()
    )
)
_CHANGED = ("requests", "tokens", "runs", "updated_at_ms")
_STORE = PreparedStatement(
    lambda _: (
        limit_usage.update()
        .where(limit_usage.c.subject == sa.bindparam("of_subject"))
        .values({name: sa.bindparam(name) for name in _CHANGED})
    )
)
_DATABASE_CLOCK = sa.select(sa.extract("epoch", sa.func.clock_timestamp()))


@record
class LimitReached:
    """A run that is not admitted: `limit` is the one that was reached, which has room at `room_at_ms`."""

    limit: Literal["requests", "tokens", "runs"]
    room_at_ms: int


@record
class Exchanged:
    """The state of a subject at `now_ms`; what was leased is counted in it.

    `refusals` has, for each run that was asked for, `None` if it is admitted. `spare_requests` and `spare_tokens` are
    leased until `spare_until_ms` and counted with that time.
    """

    now_ms: int
    refusals: tuple[LimitReached | None, ...]
    requests: SlidingLog
    tokens: SlidingLog
    runs: int
    spare_requests: int
    spare_tokens: int
    spare_until_ms: int


@dataclass(slots=True, eq=False)
class Exchange(Operation[Exchanged]):
    """Give back and add what was used since the last time, and ask for more.

    `asked` has the tokens of each run that asks to be admitted, `running` is the number of runs at gateway
    `gateway_id` now. `spare_requests` and `spare_tokens` are wanted for a lease of `lease_ms`. `unused` are requests
    and `settled` tokens (more or, below 0, less) with the times that they were counted with. `clock` returns seconds;
    `None` is the database's own.
    """

    subject: str
    limits: RateLimits
    gateway_id: str
    asked: Sequence[int] = ()
    running: int = 0
    spare_requests: int = 0
    spare_tokens: int = 0
    lease_ms: int = 0
    unused: Sequence[tuple[int, int]] = ()
    settled: Sequence[tuple[int, int]] = ()
    window_ms: int = WINDOW_MS
    clock: Callable[[], float] | None = None

    #: Rows that all gateways use are locked last, and in one order.
    comes_last = True

    @classmethod
    def execute(cls, connection: sa.Connection, operations: Sequence[Self]) -> Sequence[Exchanged]:
        """See `Operation`."""
        rows = _lock(connection, sorted({one.subject for one in operations}))
        changed: dict[str, dict[str, Any]] = {}
        results = []
        for one in operations:
            now_ms = _now_ms(connection, one.clock)
            usage = _Usage.load(rows[one.subject], one.window_ms, now_ms)
            results.append(one.apply(connection, usage))
            rows[one.subject] = changed[one.subject] = usage.to_row()
        _STORE.execute_many(connection, [{"of_subject": subject, **row} for subject, row in changed.items()])
        return results

    def apply(self, connection: sa.Connection, usage: _Usage) -> Exchanged:
        """Execute it on the subject's `usage` and return the state after it."""
        self._settle(usage)
        usage.set_runs(self.gateway_id, self.running)
        refusals = tuple(self._admit(connection, usage, tokens) for tokens in self.asked)
        until_ms = usage.now_ms + self.lease_ms
        rpm, tpm, _ = self.limits.to_tuple()
        spare_requests = _leased(self.spare_requests, rpm, usage.requests)
        spare_tokens = _leased(self.spare_tokens, tpm, usage.tokens)
        usage.requests.add(until_ms, spare_requests)
        usage.tokens.add(until_ms, spare_tokens)
        return Exchanged(
            usage.now_ms,
            refusals,
            usage.requests,
            usage.tokens,
            sum(usage.runs.values()),
            spare_requests,
            spare_tokens,
            until_ms,
        )

    def _settle(self, usage: _Usage) -> None:
        if not self.again:  # else an earlier attempt may have been committed
            for at_ms, amount in self.unused:
                usage.requests.remove(at_ms, amount)
        for at_ms, amount in self.settled:
            if amount > 0 or not self.again:
                usage.tokens.correct(at_ms, amount, usage.now_ms)

    def _admit(self, connection: sa.Connection, usage: _Usage, tokens: int) -> LimitReached | None:
        rpm, tpm, concurrent = self.limits.to_tuple()
        now_ms = usage.now_ms
        if rpm is not None:
            is_leased = rpm >= _LEASED_PART
            room_at_ms = (
                usage.requests.room_at(1, rpm, now_ms) if is_leased else usage.requests.paced_room_at(rpm, now_ms)
            )
            if room_at_ms > now_ms:
                return LimitReached("requests", room_at_ms)
        if tpm is not None and (room_at_ms := usage.tokens.room_at(tokens, tpm, now_ms)) > now_ms:
            return LimitReached("tokens", room_at_ms)
        if concurrent is not None and sum(usage.runs.values()) >= concurrent:
            usage.drop_dead_gateways(connection, self.gateway_id)
            if sum(usage.runs.values()) >= concurrent:
                return LimitReached("runs", now_ms + _RUNS_RETRY_MS)
        usage.admit(self, tokens)
        return None


@dataclass(slots=True, eq=False)
class _Usage:
    """A row, decoded, at `now_ms`."""

    now_ms: int
    requests: SlidingLog
    tokens: SlidingLog
    runs: dict[str, int] = field(default_factory=dict)

    @classmethod
    def load(cls, row: Mapping[str, Any], window_ms: int, now_ms: int) -> Self:
        logs = []
        for name in ("requests", "tokens"):
            # What is beyond the next window is from before the clock was set back.
            entries = [(at, amount) for at, amount in orjson.loads(row[name]) if at <= now_ms + window_ms]
            log = SlidingLog(window_ms, entries)
            log.expire(now_ms)
            logs.append(log)
        return cls(now_ms, logs[0], logs[1], orjson.loads(row["runs"]))

    def to_row(self) -> dict[str, Any]:
        return {
            "requests": orjson.dumps(self.requests.entries).decode(),
            "tokens": orjson.dumps(self.tokens.entries).decode(),
            "runs": orjson.dumps(self.runs).decode(),
            "updated_at_ms": self.now_ms,
        }

    def set_runs(self, gateway_id: str, count: int) -> None:
        self.runs.pop(gateway_id, None)
        if count > 0:
            self.runs[gateway_id] = count

    def admit(self, exchange: Exchange, tokens: int) -> None:
        rpm, tpm, concurrent = exchange.limits.to_tuple()
        if rpm is not None:
            self.requests.add(self.now_ms, 1)
        if tpm is not None:
            self.tokens.add(self.now_ms, tokens)
        if concurrent is not None:
            self.runs[exchange.gateway_id] = self.runs.get(exchange.gateway_id, 0) + 1

    def drop_dead_gateways(self, connection: sa.Connection, own_id: str) -> None:
        alive = {own_id, *connection.execute(sa.select(gateways.c.id)).scalars()}
        self.runs = {gateway_id: count for gateway_id, count in self.runs.items() if gateway_id in alive}


def _leased(wanted: int, limit: int | None, log: SlidingLog) -> int:
    return 0 if limit is None else max(0, min(wanted, limit // _LEASED_PART, limit - log.used))


def _lock(connection: sa.Connection, subjects: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Lock the rows of `subjects`, which are sorted, and return them; those that are missing are made."""
    parameters = {"subjects": to_list(connection.dialect, subjects)}
    found = _LOCK.all(connection, parameters)
    if len(found) < len(subjects):
        empty = {"requests": "[]", "tokens": "[]", "runs": "{}", "updated_at_ms": 0}
        new = insert(connection.dialect, limit_usage).on_conflict_do_nothing()
        connection.execute(new, [{"subject": subject, **empty} for subject in subjects])
        found = _LOCK.all(connection, parameters)
    return {row.subject: {"requests": row.requests, "tokens": row.tokens, "runs": row.runs} for row in found}


def _now_ms(connection: sa.Connection, clock: Callable[[], float] | None) -> int:
    if clock is None and connection.dialect.name == "postgresql":
        return int(connection.execute(_DATABASE_CLOCK).scalar_one() * 1000)
    return int((clock or time.time)() * 1000)


class LimitCounters:
    """The usage of all gateways. `clock` returns seconds since 1970; `None` is the database's own clock."""

    def __init__(self, database: Database, clock: Callable[[], float] | None = None) -> None:
        self._database = database
        self._clock = clock

    def exchange(self, exchange: Exchange) -> Exchanged:
        """Execute `exchange` and return the state after it. Raises `StoreError`."""
        exchange.clock = self._clock
        return self._database.write(exchange)

    def prune(self, now_ms: int) -> int:
        """Delete a batch of rows that nothing counts on any more; return their number. Raises `StoreError`."""
        return self._database.write(_Prune(now_ms - 60 * WINDOW_MS))


@dataclass(slots=True, eq=False)
class _Prune(SingleOperation[int]):
    before_ms: int

    comes_last = True

    def apply(self, connection: sa.Connection) -> int:
        updated_at_ms = limit_usage.c.updated_at_ms
        has_no_runs = sa.or_(limit_usage.c.runs == "{}", updated_at_ms <= self.before_ms - _LONGEST_RUN_MS)
        old = sa.select(limit_usage.c.subject).where(updated_at_ms <= self.before_ms, has_no_runs)
        of_batch = limit_usage.c.subject.in_(old.limit(_PRUNE_BATCH).with_for_update(skip_locked=True))
        return connection.execute(limit_usage.delete().where(of_batch)).rowcount
