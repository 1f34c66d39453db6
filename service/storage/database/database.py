"""A database behind two methods: `read` sees committed data, `write` returns after the commit.

Operations that arrive during a commit share the next one (group commit). Transient errors (a lock, a server restart, a
lost connection) are retried for a while.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from time import monotonic
from typing import Any, Generic, Literal, Protocol, Self, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from service.core.concurrency import Event, sleep, spawn
from service.core.signals import Committed, committed
from service.storage.database.daily_usage import UsageEntry, UsageWriter
from service.storage.database.errors import (
    DatabaseReplacedError,
    OperationRefusedError,
    StoreError,
    is_operation_error,
    is_transient,
    root_cause,
)
from service.storage.database.health import DatabaseHealth
from service.storage.database.schema import gateways, lanes

_log = logging.getLogger("openclaw.storage")

T = TypeVar("T")
Job = Callable[[sa.Connection], T]

#: Operations per transaction, so that the first of many does not wait for the last.
MAX_OPERATIONS_PER_COMMIT = 256

#: What a power cut may take: the last commits (at most), or nothing. Neither corrupts the database.
Durability = Literal["normal", "full"]

#: How long transient errors are retried; the pause between attempts doubles from the minimum to the maximum.
RETRY_SECONDS = 10.0
_MIN_PAUSE_SECONDS = 0.02
_MAX_PAUSE_SECONDS = 1.0

_LOCK_LEASES = (
    sa.select(lanes.c.fence)
    .where(lanes.c.session_key.in_(sa.bindparam("keys", expanding=True)))
    .order_by(lanes.c.session_key)
    .with_for_update()
)


class Operation(ABC, Generic[T]):
    """A change of the database.

    `again` is set when an earlier attempt failed, or may have been committed without an acknowledgement (the connection
    broke during the commit): an operation that is not idempotent has to check the stored state then. `usage` is added
    to the daily totals at the end of the transaction; `execute` may set it.
    """

    again = False
    usage: UsageEntry | None = None

    #: True for operations that are executed after the others of their transaction: they lock rows that many use.
    comes_last = False

    @property
    def session_key(self) -> str | None:
        """Session whose lease the operation needs, if any."""
        return None

    @classmethod
    @abstractmethod
    def execute(cls, connection: sa.Connection, operations: Sequence[Self]) -> Sequence[T]:
        """Execute several operations in the transaction of `connection` and return their results in order.

        May run again from the start after a rollback. Raises for errors that affect all of them.
        """


class SingleOperation(Operation[T]):
    """A rare change, executed one at a time."""

    @classmethod
    def execute(cls, connection: sa.Connection, operations: Sequence[Self]) -> Sequence[T]:
        """See `Operation`."""
        return [one.apply(connection) for one in operations]

    @abstractmethod
    def apply(self, connection: sa.Connection) -> T:
        """Execute the operation in the transaction of `connection` and return its result."""


class Backend(Protocol):
    """A kind of database. Methods may block and raise SQLAlchemy's errors.

    `name` is for messages and contains no password. `pushes_changes`: `wait_for_change` is notified instead of polling.
    """

    name: str
    pushes_changes: bool

    def read(self, job: Job[T]) -> T:
        """Run `job` in a read-only transaction."""

    def write(self, job: Job[T]) -> T:
        """Run `job` in a new transaction and commit it."""

    def check_present(self) -> None:
        """Raise `DatabaseReplacedError` if the database was removed or replaced; does not block."""

    def wait_for_change(self, topic: str, seconds: float) -> None:
        """Wait for a notification of `topic`, or for a polling interval; at most `seconds`."""

    def close(self) -> None:
        """Close all connections."""


@dataclass(slots=True, eq=False)
class _Pending:
    """An operation that waits for its commit."""

    operation: Operation[Any]
    settled: Event = field(default_factory=Event)
    arrived_at: float = field(default_factory=monotonic)
    result: Any = None
    error: Exception | None = None


class Database:
    """The Gateway's database. All methods are called from one thread and may block."""

    def __init__(self, backend: Backend, *, retry_seconds: float = RETRY_SECONDS) -> None:
        self._backend = backend
        self._retry_seconds = retry_seconds
        self._waiting: deque[_Pending] = deque()
        self._arrived = Event()
        self._committer: Any = None  # one greenlet: a new one for each commit costs more than the wait
        self._closed = False
        self._usage = UsageWriter()
        self._health = DatabaseHealth(backend.name, self._probe)

    @property
    def name(self) -> str:
        """Name for messages; contains no password."""
        return self._backend.name

    @property
    def pushes_changes(self) -> bool:
        """True if `wait_for_change` is notified of changes instead of polling."""
        return self._backend.pushes_changes

    def read(self, job: Job[T]) -> T:
        """Run `job(connection)` in a read-only transaction. Raises `StoreError`."""
        self._check_open()
        try:
            return self._retry(self._backend.read, job)
        except (SQLAlchemyError, DatabaseReplacedError) as error:
            self._health.record_error(error)
            raise self._failed("read", error) from error

    def fetch(
        self, statement: sa.Select[Any] | sa.CompoundSelect[Any], parameters: dict[str, Any]
    ) -> Sequence[sa.Row[Any]]:
        """Return all rows of a query. Raises `StoreError`."""
        return self.read(lambda connection: connection.execute(statement, parameters).all())

    def write(self, operation: Operation[T]) -> T:
        """Execute `operation` and return its result after the commit.

        Raises `StoreError` if nothing was stored, or the operation's own `OperationRefusedError`. Interrupting the
        waiting caller does not cancel the operation.
        """
        self._check_open()
        pending = _Pending(operation)
        self._waiting.append(pending)
        self._arrived.set()
        if not self._committer:
            self._committer = spawn(self._commit_arriving)
        pending.settled.wait()
        if isinstance(pending.error, OperationRefusedError):
            raise pending.error
        if pending.error is not None:
            raise self._failed("written", pending.error) from pending.error
        return cast(T, pending.result)

    def wait_for_change(self, topic: str, seconds: float) -> None:
        """Wait until `topic` may have changed, at most `seconds`. Spurious returns are possible."""
        self._check_open()
        self._backend.wait_for_change(topic, seconds)

    def check(self) -> None:
        """Raise `StoreError` if the database is closed, unreadable, damaged, replaced, or fails to store writes.

        Takes less than two seconds even if the database does not respond.
        """
        self._check_open()
        self._health.check()

    def check_present(self) -> None:
        """Raise `StoreError` if the database is closed or its file was removed or replaced; does not block."""
        self._check_open()
        try:
            self._backend.check_present()
        except DatabaseReplacedError as error:
            raise self._failed("used", error) from error

    def _probe(self) -> None:
        self._backend.read(lambda connection: connection.execute(sa.select(gateways.c.id).limit(1)).all())

    def close(self) -> None:
        """Commit pending operations and close the database. A second call is a no-op; other methods then raise."""
        if self._closed:
            return
        self._closed = True
        self._arrived.set()
        while self._committer:
            self._committer.join()
        self._backend.close()

    def _commit_arriving(self) -> None:
        try:
            while self._waiting or not self._closed:
                self._arrived.wait()
                self._arrived.clear()
                while self._waiting:
                    count = min(len(self._waiting), MAX_OPERATIONS_PER_COMMIT)
                    self._settle([self._waiting.popleft() for _ in range(count)])
        finally:
            if self._waiting:  # a commit was interrupted: that concerns its own operations only
                self._arrived.set()
                self._committer = spawn(self._commit_arriving)

    def _settle(self, batch: Sequence[_Pending]) -> None:
        self._health.write_started_at = monotonic()
        try:
            self._commit(batch)
        except BaseException as error:
            for pending in batch:
                pending.error = StoreError(f"Internal error: {error!r}")
            raise
        finally:
            self._health.write_started_at = None
            for pending in batch:
                pending.settled.set()

    def _commit(self, batch: Sequence[_Pending]) -> None:
        began_at = monotonic()
        try:
            self._retry(self._backend.write, lambda connection: _execute(connection, batch, self._usage), batch)
        except Exception as error:  # noqa: BLE001 - every error is passed to the waiting callers
            committed.emit(Committed(len(batch), "error", monotonic() - began_at))
            if not is_operation_error(error):
                self._health.record_write(error)
            is_last_try = len(batch) == 1 and batch[0].operation.again
            if is_last_try or not is_operation_error(error):
                for pending in batch:
                    pending.error = error
                return
            for pending in batch:
                pending.operation.again = True
                self._commit([pending])
        else:
            if committed.receivers:
                committed.emit(Committed(len(batch), "ok", monotonic() - began_at))
            self._health.record_write(None)

    def _retry(self, attempt: Callable[[Job[T]], T], job: Job[T], batch: Sequence[_Pending] = ()) -> T:
        # From the arrival, so that those that have waited for the failure of others fail without another such wait.
        give_up_at = (batch[-1].arrived_at if batch else monotonic()) + self._retry_seconds
        pause = _MIN_PAUSE_SECONDS
        while True:
            try:
                return attempt(job)
            except SQLAlchemyError as error:
                if not is_transient(error) or monotonic() + pause > give_up_at:
                    raise
            for pending in batch:
                pending.operation.again = True
            sleep(pause)
            if not batch:  # close() waits for pending writes only
                self._check_open()
            pause = min(pause * 2, _MAX_PAUSE_SECONDS)

    def _failed(self, action: str, error: Exception) -> StoreError:
        failure = StoreError(f"The {self.name} cannot be {action}: {root_cause(error)}")
        _log.error("%s", failure)
        return failure

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"The {self.name} is closed.")


def _execute(connection: sa.Connection, batch: Sequence[_Pending], writer: UsageWriter) -> None:
    if len(batch) > 1:
        _lock_leases(connection, batch)
        batch = sorted(batch, key=lambda pending: pending.operation.comes_last)
    # Adjacent operations of one kind are executed together; the order of arrival is kept.
    for kind, neighbours in groupby(batch, key=lambda pending: type(pending.operation)):
        group = list(neighbours)
        results = kind.execute(connection, [pending.operation for pending in group])
        for pending, result in zip(group, results, strict=True):
            pending.result = result
    usage = [pending.operation.usage for pending in batch if pending.operation.usage is not None]
    if usage:
        writer.add(connection, usage)


def _lock_leases(connection: sa.Connection, batch: Sequence[_Pending]) -> None:
    """Lock in one statement what several operations need.

    Two gateways locking leases in the order of their operations could deadlock, which PostgreSQL detects only after a
    second.
    """
    if connection.dialect.name != "postgresql":
        return
    keys = {pending.operation.session_key for pending in batch} - {None}
    if len(keys) > 1:
        connection.execute(_LOCK_LEASES, {"keys": list(keys)}).all()
