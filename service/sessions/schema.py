"""The tables of the session database, and how a connection to it is opened.

The schema changes only together with `SCHEMA_VERSION`, which stands in the database (SQLite's `user_version`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.pool import NullPool

SCHEMA_VERSION = 2

#: What SQLite waits for before a commit returns. With NORMAL (in WAL mode) a commit has reached the operating system:
#: a killed process loses nothing, a power cut or a crashed kernel may lose the last moments, and neither can damage
#: the database. FULL would survive the power cut too, for one disk flush per commit.
SYNCHRONOUS = "NORMAL"

#: How long to wait for another process that is writing.
BUSY_TIMEOUT_MS = 5_000

_BigInteger = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

metadata = sa.MetaData()

#: One row per session key; `entry_count` is also the `seq` of the next entry.
sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("session_id", sa.Text, nullable=False, unique=True),
    sa.Column("agent_id", sa.Text, nullable=False),
    sa.Column("entry_count", _BigInteger, nullable=False),
    sa.Column("created_at_ms", _BigInteger, nullable=False),
    sa.Column("updated_at_ms", _BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

#: Append-only, one row per message, `seq` counting from 0 in each session. `payload` is the message as JSON
#: (`service.sessions.payloads`). `model` and the token counts tell of the whole turn and stand on its last entry
#: only, so that a sum over entries counts every token once.
entries = sa.Table(
    "entries",
    metadata,
    sa.Column("id", _BigInteger, primary_key=True),
    sa.Column("session_key", sa.Text, sa.ForeignKey("sessions.key"), nullable=False),
    sa.Column("seq", _BigInteger, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("model", sa.Text),
    sa.Column("input_tokens", _BigInteger),
    sa.Column("output_tokens", _BigInteger),
    sa.Column("cached_tokens", _BigInteger),
    sa.Column("created_at_ms", _BigInteger, nullable=False),
    sa.UniqueConstraint("session_key", "seq"),
)

#: What stands for the beginning of a session once that has become too long for its model: the first `covers` entries
#: are told by the message in `payload`. The row with the largest `covers` counts; the entries themselves stay.
summaries = sa.Table(
    "summaries",
    metadata,
    sa.Column("session_key", sa.Text, sa.ForeignKey("sessions.key"), primary_key=True),
    sa.Column("covers", _BigInteger, primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("created_at_ms", _BigInteger, nullable=False),
    sqlite_with_rowid=False,
)


class StoreError(Exception):
    """The session database cannot do what was asked. The message says what is wrong and never holds what was said."""


def create_file(path: Path) -> None:
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


def open_writer(path: Path) -> sa.Connection:
    """The connection that writes, its schema in place. Its transactions hold the write lock from their first moment.

    Raises `StoreError` for a database this version cannot use.
    """
    engine = _engine(path)

    @event.listens_for(engine, "begin")
    def begin_immediate(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    connection = engine.connect()
    try:
        _ensure_schema(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(path: Path) -> sa.Connection:
    """A connection that cannot write; each statement sees all that was committed before it."""
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


def _ensure_schema(connection: sa.Connection) -> None:
    with connection.begin():  # all or nothing: a process killed in here leaves the database as it was
        version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        if version == SCHEMA_VERSION:
            return
        if version == 0:
            metadata.create_all(connection, checkfirst=False)
        elif version == 1:
            summaries.create(connection)  # all that version 2 added
        else:
            raise StoreError(
                f"its schema has version {version}, this program knows versions up to {SCHEMA_VERSION}. Run a newer "
                "program, or point this one at another state directory."
            )
        connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
