"""PostgreSQL: one database for many processes and hosts, over a few connections that greenlets share.

psycopg waits cooperatively in a patched process. Changes are told by LISTEN and NOTIFY.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from typing import Any, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

from service.core.concurrency import Event, sleep, spawn, wait_readable
from service.storage.database.database import PATIENCE_SECONDS
from service.storage.database.errors import StoreError
from service.storage.database.migrate import current_revision, migrate
from service.storage.database.notify import CHANNEL, to_payload
from service.storage.database.schema import HEAD

T = TypeVar("T")
Job = Callable[[sa.Connection], T]

CONNECTIONS = 8

#: Where the listener is not heard (its connection broke), those who wait look again after this long.
HEARD_AT_LEAST_SECONDS = 1.0

_MIGRATION_LOCK = 0x6F70656E636C6177  # "openclaw": nobody else's advisory lock
_RECONNECT_SECONDS = 1.0

#: A server that is silent for about this long (its host is gone, the network is cut) counts as lost.
_NOTICES_SILENCE = {
    "connect_timeout": 10,
    "tcp_user_timeout": 15_000,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}

_log = logging.getLogger("openclaw.state")


class PostgresBackend:
    """The database behind an engine."""

    tells_changes = True

    def __init__(self, engine: sa.Engine) -> None:
        shown = engine.url._replace(password=None, query=sa.util.immutabledict())  # either may hold a password
        self.name = f"session database {shown.render_as_string()}"
        self._engine = engine
        self._reading = engine.execution_options(postgresql_readonly=True)
        self._listener = _Listener(engine)

    @classmethod
    def open(cls, url: sa.URL) -> Self:
        """Connect and bring the schema into place. Raises `StoreError` and what SQLAlchemy raises."""
        engine = sa.create_engine(
            url,
            poolclass=QueuePool,
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=PATIENCE_SECONDS,
            hide_parameters=True,  # they hold what was said, and errors reach the log
            connect_args={"application_name": "openclaw-gateway", **_NOTICES_SILENCE},
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

    def check(self) -> None:
        """See `Backend.check`."""

    def wait_change(self, topic: str, seconds: float) -> None:
        """See `Backend.wait_change`."""
        self._listener.wait(topic, min(seconds, HEARD_AT_LEAST_SECONDS))

    def close(self) -> None:
        """See `Backend.close`."""
        self._listener.close()
        self._engine.dispose()


class _Listener:
    """Hears what is told, on a connection of its own that is made when somebody first waits."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._waiting: dict[str, list[Event]] = {}
        self._greenlet: Any = None
        self._closed = False

    def wait(self, topic: str, seconds: float) -> None:
        if self._greenlet is None:
            self._greenlet = spawn(self._listen)
        payload, told = to_payload(topic), Event()
        self._waiting.setdefault(payload, []).append(told)
        try:
            told.wait(seconds)
        finally:
            self._waiting[payload].remove(told)
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
                    self._hear(connection)
            except Exception as error:  # noqa: BLE001 - whoever waits looks for themselves meanwhile
                _log.warning("changes are not heard for a moment: %s", type(error).__name__)
                sleep(_RECONNECT_SECONDS)

    def _connect(self) -> Any:
        arguments, options = self._engine.dialect.create_connect_args(self._engine.url)
        dbapi: Any = self._engine.dialect.loaded_dbapi
        return dbapi.connect(*arguments, **{**_NOTICES_SILENCE, **options}, autocommit=True)

    def _hear(self, connection: Any) -> None:
        connection.execute(f"LISTEN {CHANNEL}")
        while not self._closed:
            wait_readable(connection.fileno())
            for notification in connection.notifies(timeout=0):
                for told in self._waiting.get(notification.payload, ()):
                    told.set()


def parse_postgres_url(text: str) -> sa.URL:
    """The URL of a PostgreSQL database; raises `StoreError` in words that do not repeat it (it may hold a password)."""
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):  # the latter for a port that is no number
        raise StoreError('it is not a URL; write "postgresql+psycopg://user@host/database"') from None
    if url.get_backend_name() != "postgresql" or url.drivername not in ("postgresql", "postgresql+psycopg"):
        raise StoreError(f'it names "{url.drivername}"; this program speaks "postgresql+psycopg://user@host/database"')
    if "@" in f"{url.host}{url.database}":
        # Part of a password, then, which messages would tell as the host or the database.
        raise StoreError('it has too many "@"; write those of the user\'s name and password as %40')
    return url.set(drivername="postgresql+psycopg")
