"""SQLite backend: one file on one host, accessed in real threads (a writer, a reader, a checkpointer).

The event loop never waits for the disk, and readers never wait for the writer.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from service.core.concurrency import WorkerThread, sleep
from service.storage.database.checkpoints import LIMIT_BYTES, Checkpointer
from service.storage.database.database import Durability
from service.storage.database.errors import DatabaseReplacedError
from service.storage.database.migrate import migrate

_BEGIN_READING = "BEGIN"
_BEGIN_WRITING = "BEGIN IMMEDIATE"  # takes the write lock at once

# The driver looks for an adapter of each None that it stores, which costs much more than this one.
sqlite3.register_adapter(type(None), lambda none: none)

T = TypeVar("T")
Job = Callable[[sa.Connection], T]

#: SQLite's `synchronous` by durability. With NORMAL (in WAL mode) a commit is handed to the operating system: a killed
#: process loses nothing, a power cut or a kernel crash may lose the last commits, and neither corrupts the database.
#: FULL also survives a power cut, at the cost of one disk flush per commit.
_SYNCHRONOUS: dict[Durability, str] = {"normal": "NORMAL", "full": "FULL"}

#: How long a statement waits for a lock of another process before the whole transaction is retried.
BUSY_TIMEOUT_MS = 5_000

#: How long other processes wait for a migration, with their first statements on a connection, too.
MIGRATION_TIMEOUT_MS = 60_000

#: Polling interval for changes by other processes.
POLL_SECONDS = 0.05


class SqliteBackend:
    """A database in the file `path`, readable only by its owner."""

    pushes_changes = False

    def __init__(
        self,
        path: Path,
        files: _OpenFiles,
        writer: _DatabaseThread,
        reader: _DatabaseThread,
        checkpointer: Checkpointer,
    ) -> None:
        self.name = f"session database {path}"
        self._files = files
        self._writer = writer
        self._reader = reader
        self._checkpointer = checkpointer

    @classmethod
    def open(cls, path: Path, durability: Durability) -> Self:
        """Open the file, creating it and its directory if missing, and migrate its schema.

        Raises `StoreError`, `OSError` and SQLAlchemy's errors.
        """
        _create_file(path)
        with ExitStack() as opened:
            files = _OpenFiles(path)
            writer = _DatabaseThread(partial(_open_writer, path, durability), _BEGIN_WRITING, files)
            opened.callback(writer.close)
            files.find_log()
            reader = _DatabaseThread(partial(_open_reader, path), _BEGIN_READING, files)
            opened.callback(reader.close)
            checkpointer = Checkpointer(path)
            opened.callback(checkpointer.close)
            backend = cls(path, files, writer, reader, checkpointer)
            opened.pop_all()
            return backend

    def read(self, job: Job[T]) -> T:
        """See `Backend.read`."""
        return self._reader.run(job)

    def write(self, job: Job[T]) -> T:
        """See `Backend.write`."""
        self._checkpointer.wait_for_room()
        outcome = self._writer.run(job)
        self._checkpointer.note_commit(self._files.log_bytes)
        return outcome

    def check_present(self) -> None:
        """See `Backend.check_present`: verify that the paths still name the opened files."""
        self._files.check()

    def wait_for_change(self, topic: str, seconds: float) -> None:
        """See `Backend.wait_for_change`: SQLite has no notifications, so callers poll."""
        del topic
        sleep(min(seconds, POLL_SECONDS))

    def close(self) -> None:
        """See `Backend.close`."""
        self._reader.close()
        self._checkpointer.close()
        self._writer.close()  # last, because the last connection folds the write-ahead log into the database


class _OpenFiles:
    """The database file `path` and its write-ahead log, which exists while a connection is open.

    `log_bytes` is the size of the log at the last check.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._log_path = f"{path}-wal"
        self._file, _ = _find(self._path)
        self._log: tuple[int, int] | None = None
        self.log_bytes = 0

    def find_log(self) -> None:
        """Note which file is the log, once a connection is open and before threads `check` it."""
        self._log, self.log_bytes = _find(self._log_path)

    def check(self) -> None:
        """Raise `DatabaseReplacedError` if a path does not name the opened file any more: its writes would be lost."""
        (file, _), (log, log_bytes) = _find(self._path), _find(self._log_path)
        if (file, log) != (self._file, self._log):
            raise DatabaseReplacedError("its file was removed or replaced. Restart the gateway.")
        self.log_bytes = log_bytes


def _find(path: str) -> tuple[tuple[int, int] | None, int]:
    """Return the identity of a file, `None` if there is none, and its size in bytes."""
    try:
        found = os.stat(path)  # noqa: PTH116 - half the time of pathlib, in every transaction
    except OSError:
        return None, 0
    return (found.st_dev, found.st_ino), found.st_size


class _DatabaseThread:
    """A connection in its own thread; each use is a transaction that runs there, in order."""

    def __init__(self, connect: Callable[[], sa.Connection], begin: str, files: _OpenFiles) -> None:
        self._worker = WorkerThread()
        self._begin = begin
        self._files = files
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
        result = _in_transaction(self._connection, self._begin, job)
        self._files.check()  # afterwards: what was committed to a file that is gone must not count as stored
        return result


def _in_transaction(connection: sa.Connection, begin: str, job: Job[T]) -> T:
    """Run `job` in a transaction that the driver begins and ends, with errors wrapped as SQLAlchemy's.

    SQLAlchemy's own BEGIN and COMMIT cost several times as much.
    """
    driver: Any = connection.connection.dbapi_connection
    try:
        driver.execute(begin)
        try:
            result = job(connection)
            connection.commit()  # SQLAlchemy's share of it, if it has one
            driver.commit()
        except BaseException:
            connection.rollback()
            driver.rollback()
            raise
    except sqlite3.Error as error:
        raise DBAPIError.instance(None, None, error, sqlite3.Error, hide_parameters=True) from error
    return result


def _create_file(path: Path) -> None:
    """Create `path` if missing, readable only by its owner, in a directory that is private if it has to be created.

    SQLite gives its `-wal` and `-shm` files the mode of the database file. Raises `OSError`.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        # Not opened: closing any descriptor of the file would drop the locks SQLite holds on it in this process.
        if path.is_file():
            path.chmod(0o600)


def _open_writer(path: Path, durability: Durability) -> sa.Connection:
    """Open the writing connection and migrate the schema."""
    engine = _engine(path, durability)

    @event.listens_for(engine, "connect")
    def disable_checkpoints(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA journal_size_limit = {LIMIT_BYTES}")

    connection = engine.connect()
    try:
        _in_transaction(connection, _BEGIN_WRITING, migrate)
        _set_busy_timeout(connection, BUSY_TIMEOUT_MS)
    except BaseException:
        connection.close()
        raise
    return connection


def _set_busy_timeout(connection: sa.Connection, milliseconds: int) -> None:
    driver: Any = connection.connection.dbapi_connection
    driver.execute(f"PRAGMA busy_timeout = {milliseconds}")


def _open_reader(path: Path) -> sa.Connection:
    """Open a read-only connection."""
    engine = _engine(path)

    @event.listens_for(engine, "connect")
    def forbid_writes(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA query_only = ON")

    connection = engine.connect()
    _set_busy_timeout(connection, BUSY_TIMEOUT_MS)
    return connection


def _engine(path: Path, durability: Durability = "normal") -> sa.Engine:
    # isolation_level None: sqlite3 itself would begin transactions late and leave DDL outside of them.
    # NullPool: each connection belongs to one thread.
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        connect_args={"isolation_level": None, "timeout": MIGRATION_TIMEOUT_MS / 1000},
        poolclass=NullPool,
        hide_parameters=True,  # they contain message text, and errors are logged
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        _enter_wal_mode(connection)
        for pragma in (f"synchronous = {_SYNCHRONOUS[durability]}", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def _enter_wal_mode(connection: sqlite3.Connection) -> None:
    """Set the journal mode, for which SQLite itself does not wait while another process writes in the earlier mode."""
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
        else:
            return
        connection.execute(_BEGIN_WRITING)  # waits
        connection.execute("ROLLBACK")
