"""SQLite: one file for one host, touched in real threads: one writes, one reads, one keeps the log of writes short.

Nobody else waits for a disk, and readers never wait for the writer.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from service.core.concurrency import WorkerThread, sleep
from service.storage.database.checkpoints import LIMIT_BYTES, Checkpointer
from service.storage.database.errors import StoreError
from service.storage.database.migrate import migrate

_BEGIN_READING = "BEGIN"
_BEGIN_WRITING = "BEGIN IMMEDIATE"  # holds the write lock from its first moment

T = TypeVar("T")
Job = Callable[[sa.Connection], T]

#: What SQLite waits for before a commit returns. With NORMAL (in WAL mode) a commit has reached the operating system:
#: a killed process loses nothing, a power cut or a crashed kernel may lose the last moments, and neither can damage
#: the database. FULL would survive the power cut too, for one disk flush per commit.
SYNCHRONOUS = "NORMAL"

#: How long a statement waits for another process that is writing; then the whole transaction is tried again.
BUSY_TIMEOUT_MS = 5_000

#: How long the first start of a new version may take while others wait for its migration.
MIGRATION_TIMEOUT_MS = 60_000

#: How often a change by another process is looked for.
POLL_SECONDS = 0.05


class SqliteBackend:
    """The database in the file `path`, for its owner alone."""

    tells_changes = False

    def __init__(
        self, path: Path, writer: _DatabaseThread, reader: _DatabaseThread, checkpointer: Checkpointer
    ) -> None:
        self.name = f"session database {path}"
        self._path = path
        self._file = path.stat()
        self._writer = writer
        self._reader = reader
        self._checkpointer = checkpointer

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file, making it, and its directory, if there is none; its schema is then in place.

        Raises `StoreError`, `OSError` and what SQLAlchemy raises.
        """
        _create_file(path)
        with ExitStack() as opened:
            writer = _DatabaseThread(partial(_open_writer, path), _BEGIN_WRITING)
            opened.callback(writer.close)
            reader = _DatabaseThread(partial(_open_reader, path), _BEGIN_READING)
            opened.callback(reader.close)
            checkpointer = Checkpointer(path)
            opened.callback(checkpointer.close)
            backend = cls(path, writer, reader, checkpointer)
            opened.pop_all()
            return backend

    def read(self, job: Job[T]) -> T:
        """See `Backend.read`."""
        return self._reader.run(job)

    def write(self, job: Job[T]) -> T:
        """See `Backend.write`."""
        self._checkpointer.wait_for_room()
        outcome = self._writer.run(job)
        self._checkpointer.note_commit()
        return outcome

    def check(self) -> None:
        """See `Backend.check`: the file is still the one that was opened."""
        try:
            same = os.path.samestat(self._path.stat(), self._file)
        except OSError:
            same = False
        if not same:
            raise StoreError(f"The {self.name} has been removed or replaced: restart the gateway.")

    def wait_change(self, topic: str, seconds: float) -> None:
        """See `Backend.wait_change`: SQLite tells nobody, so it is asked again after a moment."""
        del topic
        sleep(min(seconds, POLL_SECONDS))

    def close(self) -> None:
        """See `Backend.close`."""
        self._reader.close()
        self._checkpointer.close()
        self._writer.close()  # last, because the last connection folds the write-ahead log into the database


class _DatabaseThread:
    """One connection in one real thread: every use of it is a transaction that runs there, in order."""

    def __init__(self, connect: Callable[[], sa.Connection], begin: str) -> None:
        self._worker = WorkerThread()
        self._begin = begin
        try:
            self._connection = self._worker.run(connect)
        except BaseException:
            self._worker.close()
            raise

    def run(self, job: Job[T]) -> T:
        outcome: T = self._worker.run(self._transact, job)
        return outcome

    def close(self) -> None:
        try:
            self._worker.run(self._connection.close)
        finally:
            self._worker.close()

    def _transact(self, job: Job[T]) -> T:
        with _transaction(self._connection, self._begin):
            return job(self._connection)


@contextmanager
def _transaction(connection: sa.Connection, begin: str) -> Iterator[None]:
    """A transaction that the driver begins and ends itself, its errors told as SQLAlchemy's.

    SQLAlchemy's own statements need several times what SQLite needs for them.
    """
    driver: Any = connection.connection.driver_connection
    try:
        driver.execute(begin)
        try:
            yield
            connection.commit()  # SQLAlchemy's share of it, if it has one
            driver.commit()
        except BaseException:
            connection.rollback()
            driver.rollback()
            raise
    except sqlite3.Error as error:
        raise DBAPIError.instance(None, None, error, sqlite3.Error, hide_parameters=True) from error


def _create_file(path: Path) -> None:
    """Make sure `path` exists and only its owner may read it; a directory that is missing is made for the owner alone.

    SQLite gives its `-wal` and `-shm` files the mode of the database file. Raises `OSError`.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        # Not opened: closing any descriptor of the file would drop the locks SQLite holds on it in this process.
        if path.is_file():
            path.chmod(0o600)


def _open_writer(path: Path) -> sa.Connection:
    """The connection that writes, its schema in place."""
    engine = _engine(path)

    @event.listens_for(engine, "connect")
    def leave_checkpoints_to_others(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA journal_size_limit = {LIMIT_BYTES}")

    connection = engine.connect()
    try:
        _set_busy_timeout(connection, MIGRATION_TIMEOUT_MS)
        with _transaction(connection, _BEGIN_WRITING):
            migrate(connection)
        _set_busy_timeout(connection, BUSY_TIMEOUT_MS)
    except BaseException:
        connection.close()
        raise
    return connection


def _set_busy_timeout(connection: sa.Connection, milliseconds: int) -> None:
    driver: Any = connection.connection.driver_connection
    driver.execute(f"PRAGMA busy_timeout = {milliseconds}")


def _open_reader(path: Path) -> sa.Connection:
    """A connection that cannot write; each transaction sees all that was committed before it."""
    engine = _engine(path)

    @event.listens_for(engine, "connect")
    def forbid_writes(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA query_only = ON")

    return engine.connect()


def _engine(path: Path) -> sa.Engine:
    # isolation_level None: sqlite3 itself would begin transactions late and leave DDL outside of them.
    # NullPool: a connection belongs to one thread, which keeps it.
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        connect_args={"isolation_level": None, "timeout": BUSY_TIMEOUT_MS / 1000},
        poolclass=NullPool,
        hide_parameters=True,  # they hold what was said, and errors reach the log
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        for pragma in ("journal_mode = WAL", f"synchronous = {SYNCHRONOUS}", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    return engine
