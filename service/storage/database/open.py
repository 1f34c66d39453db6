"""Which database: the file under the state directory, or the PostgreSQL database of `state.url`."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from service.storage.database.database import PATIENCE_SECONDS, Backend, Database
from service.storage.database.errors import StoreError, reason_of
from service.storage.database.sqlite import SqliteBackend

FILE_NAME = "sessions.sqlite"


def open_database(url: str | None, state_dir: Path, *, patience_seconds: float = PATIENCE_SECONDS) -> Database:
    """Open the database of `url`, or SQLite's file in `state_dir`; its schema is then in place.

    The caller closes it. Raises `StoreError` when it cannot be used, in particular when a newer version of the program
    has been there.
    """
    if url is None:
        return open_file(state_dir / FILE_NAME, patience_seconds=patience_seconds)
    try:
        # Imported only here: the driver is an extra, and who uses SQLite does not need it.
        from service.storage.database.postgres import PostgresBackend, parse_postgres_url  # noqa: PLC0415

        parsed = parse_postgres_url(url)
        backend: Backend = PostgresBackend.open(parsed)
    except ModuleNotFoundError as error:
        text = f"state.url needs the driver: pip install '.[postgres]' ({error.name} is missing)."
        raise StoreError(text) from None
    except (OSError, SQLAlchemyError, StoreError) as error:
        raise StoreError(f"The database of state.url cannot be used: {reason_of(error)}") from error
    return Database(backend, patience_seconds=patience_seconds)


def check_url(url: str) -> None:
    """Raises `StoreError`, which does not repeat it, for a `url` of a database that is not spoken here.

    Nothing is contacted.
    """
    from service.storage.database.postgres import parse_postgres_url  # noqa: PLC0415 - who uses SQLite does not need it

    parse_postgres_url(url)


def open_file(path: Path, *, patience_seconds: float = PATIENCE_SECONDS) -> Database:
    """Open SQLite's file at `path`, making it if there is none. Raises `StoreError`."""
    try:
        backend = SqliteBackend.open(path)
    except (OSError, SQLAlchemyError, StoreError) as error:
        raise StoreError(f"The session database {path} cannot be used: {reason_of(error)}") from error
    return Database(backend, patience_seconds=patience_seconds)
