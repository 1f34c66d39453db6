"""One database behind two verbs: `read` sees what was committed, `write` returns once its operation is.

Operations that come while a commit is under way share the next one. What passes (a lock, a restart of the server, a
lost connection) is tried again for a while; whoever waits notices only the time.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from time import monotonic
from typing import Any, Generic, Protocol, Self, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from service.core.concurrency import Event, sleep, spawn
from service.storage.database.errors import StoreError, is_of_the_operation, may_pass, reason_of
from service.storage.database.schema import lanes

_log = logging.getLogger("openclaw.state")

T = TypeVar("T")
Job = Callable[[sa.Connection], T]

#: How many operations one transaction takes, so that the first of a crowd does not wait for the last.
MAX_OPERATIONS_PER_COMMIT = 256

#: How long what passes is waited for, and how long at first between two attempts (doubled up to a second).
PATIENCE_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 1.0

_LOCK_LANES = (
    sa.select(lanes.c.fence)
    .where(lanes.c.session_key.in_(sa.bindparam("keys", expanding=True)))
    .order_by(lanes.c.session_key)
    .with_for_update()
)


class Operation(ABC, Generic[T]):
    """One change of the database.

    `again` says that an earlier attempt failed, or may have been committed without anybody learning of it (the
    connection broke in the commit): what must not happen twice, or took something for granted, has to look.
    """

    again = False

    @property
    def session_key(self) -> str | None:
        """The session whose lane the operation needs, if it needs one."""
        return None

    @classmethod
    @abstractmethod
    def execute(cls, connection: sa.Connection, operations: Sequence[Self]) -> Sequence[T]:
        """Carry out several operations in the transaction of `connection`; returns their results in order.

        May run again from the beginning after a rollback. Raises for what keeps all of them from being carried out.
        """


class SingleOperation(Operation[T]):
    """A change that is seldom made: nothing is gained by carrying several out together."""

    @classmethod
    def execute(cls, connection: sa.Connection, operations: Sequence[Self]) -> Sequence[T]:
        """See `Operation`."""
        return [one.apply(connection) for one in operations]

    @abstractmethod
    def apply(self, connection: sa.Connection) -> T:
        """Carry the operation out in the transaction of `connection` and return its result."""


class Backend(Protocol):
    """A kind of database. Every method may wait, and raises what SQLAlchemy raises.

    `name` is for messages and holds no password; `tells_changes` says whether `wait_change` hears of changes or polls.
    """

    name: str
    tells_changes: bool

    def read(self, job: Job[T]) -> T:
        """Run `job` where it sees what was committed and cannot write."""

    def write(self, job: Job[T]) -> T:
        """Run `job` in a transaction of its own and commit it."""

    def check(self) -> None:
        """Return if the database is there; raises `StoreError` where more than a failing read tells that it is not."""

    def wait_change(self, topic: str, seconds: float) -> None:
        """Wait until `topic` may have changed: until somebody says so, or for a moment, at most `seconds`."""

    def close(self) -> None:
        """Let go of the database."""


@dataclass(slots=True, eq=False)
class _Pending:
    """An operation on its way into the database."""

    operation: Operation[Any]
    settled: Event = field(default_factory=Event)
    result: Any = None
    error: Exception | None = None


class Database:
    """The Gateway's database. All methods are called from one thread and may wait."""

    def __init__(self, backend: Backend, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._backend = backend
        self._patience_seconds = patience_seconds
        self._waiting: deque[_Pending] = deque()
        self._idle = Event()
        self._idle.set()
        self._closed = False

    @property
    def name(self) -> str:
        """What the database is called in messages; holds no password."""
        return self._backend.name

    @property
    def tells_changes(self) -> bool:
        """Whether `wait_change` hears of changes; else it polls."""
        return self._backend.tells_changes

    def read(self, job: Job[T]) -> T:
        """Run `job(connection)` on what was committed. Raises `StoreError`."""
        self._check_open()
        try:
            return self._patiently(self._backend.read, job)
        except SQLAlchemyError as error:
            raise self._failed("read", error) from error

    def fetch(self, statement: sa.Select[Any], parameters: dict[str, Any]) -> Sequence[sa.Row[Any]]:
        """All rows of one query. Raises `StoreError`."""
        return self.read(lambda connection: connection.execute(statement, parameters).all())

    def write(self, operation: Operation[T]) -> T:
        """Carry `operation` out and return its result once it is committed.

        Raises `StoreError`, and then nothing of it is stored. A caller that is interrupted while it waits does not
        learn the outcome: the operation is carried out as usual.
        """
        self._check_open()
        pending = _Pending(operation)
        self._waiting.append(pending)
        if self._idle.is_set():
            self._idle.clear()
            spawn(self._commit_waiting)
        pending.settled.wait()
        if pending.error is not None:
            raise self._failed("written", pending.error) from pending.error
        return cast(T, pending.result)

    def wait_change(self, topic: str, seconds: float) -> None:
        """Wait until `topic` may have changed, at most `seconds`; may return early for no reason."""
        self._check_open()
        self._backend.wait_change(topic, seconds)

    def check(self) -> None:
        """Return if the database can be used, raise `StoreError` if it is closed, unreadable or was replaced."""
        self._check_open()
        try:
            self._backend.read(lambda connection: connection.execute(sa.select(sa.literal(1))).all())
        except SQLAlchemyError as error:
            raise self._failed("read", error) from error
        self._backend.check()

    def close(self) -> None:
        """Finish the operations that wait, then let go of the database. Twice is a no-op; other calls then raise."""
        if self._closed:
            return
        self._closed = True
        self._idle.wait()
        self._backend.close()

    def _commit_waiting(self) -> None:
        try:
            while self._waiting:
                count = min(len(self._waiting), MAX_OPERATIONS_PER_COMMIT)
                self._settle([self._waiting.popleft() for _ in range(count)])
        finally:
            self._idle.set()

    def _settle(self, batch: Sequence[_Pending]) -> None:
        try:
            self._commit(batch)
        except BaseException as error:
            for pending in batch:
                pending.error = StoreError(f"the program failed: {error!r}")
            raise
        finally:
            for pending in batch:
                pending.settled.set()

    def _commit(self, batch: Sequence[_Pending]) -> None:
        try:
            self._patiently(self._backend.write, lambda connection: _execute(connection, batch), batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait for the operations are told
            is_last_try = len(batch) == 1 and batch[0].operation.again
            if is_last_try or not is_of_the_operation(error):
                for pending in batch:
                    pending.error = error
                return
            for pending in batch:
                pending.operation.again = True
                self._commit([pending])

    def _patiently(self, attempt: Callable[[Job[T]], T], job: Job[T], batch: Sequence[_Pending] = ()) -> T:
        give_up_at = monotonic() + self._patience_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return attempt(job)
            except SQLAlchemyError as error:
                if not may_pass(error) or monotonic() + pause > give_up_at:
                    raise
            for pending in batch:
                pending.operation.again = True
            sleep(pause)
            if not batch:  # closing waits for what is to be written, and for nothing else
                self._check_open()
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _failed(self, done: str, error: Exception) -> StoreError:
        failure = StoreError(f"The {self.name} cannot be {done}: {reason_of(error)}")
        _log.error("%s", failure)
        return failure

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"The {self.name} is closed.")


def _execute(connection: sa.Connection, batch: Sequence[_Pending]) -> None:
    keys = {pending.operation.session_key for pending in batch} - {None}
    if len(keys) > 1 and connection.dialect.name == "postgresql":
        # All at once and in one order: two gateways that took lanes as their operations come would wait for each
        # other, and PostgreSQL takes a second to notice that.
        connection.execute(_LOCK_LANES, {"keys": list(keys)}).all()
    # Neighbours of one kind go together; the order in which operations came is kept.
    for kind, neighbours in groupby(batch, key=lambda pending: type(pending.operation)):
        group = list(neighbours)
        results = kind.execute(connection, [pending.operation for pending in group])
        for pending, result in zip(group, results, strict=True):
            pending.result = result
