"""PostgreSQL backend: one database for many processes and hosts, over a small connection pool.

psycopg waits cooperatively in a patched process. Changes are pushed with LISTEN and NOTIFY.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from typing import Any, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

from service.core.concurrency import Event, sleep, spawn, wait_readable
from service.storage.database.database import RETRY_SECONDS, Durability
from service.storage.database.errors import StoreError
from service.storage.database.migrate import current_revision, migrate
from service.storage.database.notify import CHANNEL, to_notification
from service.storage.database.schema import HEAD

T = TypeVar("T")
Job = Callable[[sa.Connection], T]

CONNECTIONS = 8

#: Waiters poll at this interval in case the listener's connection is broken.
LISTEN_TIMEOUT_SECONDS = 1.0

_MIGRATION_LOCK = 0x6F70656E636C6177  # "openclaw" in ASCII
_RECONNECT_SECONDS = 1.0

#: The name that the server shows, and time-outs after which a silent server (host down, network cut) counts as lost.
_CONNECTION_OPTIONS = {
    "application_name": "openclaw-gateway",
    "connect_timeout": 10,
    "tcp_user_timeout": 15_000,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}

_log = logging.getLogger("openclaw.storage")


def _flush_option(url: sa.URL, durability: Durability) -> dict[str, str]:
    """Return the connection option that makes each commit wait for the disk, whatever the server's default is."""
    if durability == "normal":
        return {}
    given = url.query.get("options", "")
    before = given if isinstance(given, str) else " ".join(given)
    return {"options": f"{before} -c synchronous_commit=on".strip()}


class PostgresBackend:
    """A PostgreSQL database behind an SQLAlchemy engine."""

    pushes_changes = True

    def __init__(self, engine: sa.Engine) -> None:
        shown = engine.url._replace(password=None, query=sa.util.immutabledict())  # either may hold a password
        self.name = f"session database {shown.render_as_string()}"
        self._engine = engine
        self._reading = engine.execution_options(postgresql_readonly=True)
        self._listener = _Listener(engine)

    @classmethod
    def open(cls, url: sa.URL, durability: Durability = "normal") -> Self:
        """Connect and migrate the schema. Raises `StoreError` and SQLAlchemy's errors."""
        engine = sa.create_engine(
            url,
            poolclass=QueuePool,
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=RETRY_SECONDS,
            hide_parameters=True,  # they contain message text, and errors are logged
            connect_args={**_CONNECTION_OPTIONS, **_flush_option(url, durability)},
        )
        try:
            with engine.begin() as connection:
                if current_revision(connection) != HEAD:
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
                    migrate(connection)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine)

    def read(self, job: Job[T]) -> T:
        """See `Backend.read`."""
        with self._reading.begin() as connection:
            return job(connection)

    def write(self, job: Job[T]) -> T:
        """See `Backend.write`."""
        with self._engine.begin() as connection:
            return job(connection)

    def check_present(self) -> None:
        """See `Backend.check_present`: a server has no file to lose."""

    def wait_for_change(self, topic: str, seconds: float) -> None:
        """See `Backend.wait_for_change`."""
        self._listener.wait(topic, min(seconds, LISTEN_TIMEOUT_SECONDS))

    def close(self) -> None:
        """See `Backend.close`."""
        self._listener.close()
        self._engine.dispose()


class _Listener:
    """Receives notifications on its own connection, opened at the first wait."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._waiting: dict[str, list[Event]] = {}
        self._greenlet: Any = None
        self._closed = False

    def wait(self, topic: str, seconds: float) -> None:
        if self._greenlet is None:
            self._greenlet = spawn(self._listen)
        payload, notified = to_notification(topic), Event()
        self._waiting.setdefault(payload, []).append(notified)
        try:
            notified.wait(seconds)
        finally:
            self._waiting[payload].remove(notified)
            if not self._waiting[payload]:
                del self._waiting[payload]

    def close(self) -> None:
        self._closed = True
        if self._greenlet is not None:
            self._greenlet.kill()

    def _listen(self) -> None:
        while not self._closed:
            try:
                with closing(self._connect()) as connection:
                    self._receive(connection)
            except Exception as error:  # noqa: BLE001 - waiters poll in the meantime
                _log.warning("change notifications interrupted, reconnecting: %s", type(error).__name__)
                sleep(_RECONNECT_SECONDS)

    def _connect(self) -> Any:
        arguments, options = self._engine.dialect.create_connect_args(self._engine.url)
        dbapi: Any = self._engine.dialect.loaded_dbapi
        return dbapi.connect(*arguments, **{**_CONNECTION_OPTIONS, **options}, autocommit=True)

    def _receive(self, connection: Any) -> None:
        connection.execute(f"LISTEN {CHANNEL}")
        while not self._closed:
            wait_readable(connection.fileno())
            for notification in connection.notifies(timeout=0):
                for event in self._waiting.get(notification.payload, ()):
                    event.set()


def parse_postgres_url(text: str) -> sa.URL:
    """Parse the URL of a PostgreSQL database. Raises `StoreError` without quoting it: it may contain a password."""
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):  # ValueError: the port is not a number
        raise StoreError('it is not a URL. Use "postgresql+psycopg://user@host/database"') from None
    if url.get_backend_name() != "postgresql" or url.drivername not in ("postgresql", "postgresql+psycopg"):
        raise StoreError(
            f'the driver "{url.drivername}" is not supported. Use "postgresql+psycopg://user@host/database"'
        )
    if "@" in f"{url.host}{url.database}":
        # Probably part of a password, which messages would show as the host or the database.
        raise StoreError('it has too many "@". Encode those in the user name and the password as %40')
    return url.set(drivername="postgresql+psycopg")
