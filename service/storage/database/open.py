"""Open the database: SQLite's file in the state directory, or the PostgreSQL database of `state.url`."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from service.storage.database.database import RETRY_SECONDS, Backend, Database, Durability
from service.storage.database.errors import StoreError, root_cause
from service.storage.database.sqlite import SqliteBackend

FILE_NAME = "sessions.sqlite"


def open_database(
    url: str | None, state_dir: Path, *, durability: Durability = "normal", retry_seconds: float = RETRY_SECONDS
) -> Database:
    """Open the database of `url`, or SQLite's file in `state_dir`, and migrate its schema.

    The caller closes it. Raises `StoreError` if it cannot be used, for example after a newer version has migrated it.
    """
    if url is None:
        return open_file(state_dir / FILE_NAME, durability=durability, retry_seconds=retry_seconds)
    try:
        # Imported only here: the driver is an extra that SQLite does not need.
        from service.storage.database.postgres import PostgresBackend, parse_postgres_url  # noqa: PLC0415

        parsed = parse_postgres_url(url)
        backend: Backend = PostgresBackend.open(parsed, durability)
    except ModuleNotFoundError as error:
        text = f"state.url needs the driver: pip install '.[postgres]' ({error.name} is missing)."
        raise StoreError(text) from None
    except (OSError, SQLAlchemyError, StoreError) as error:
        raise StoreError(
            f"The database of state.url or OPENCLAW_STATE_URL cannot be used: {root_cause(error)}"
        ) from error
    return Database(backend, retry_seconds=retry_seconds)


def check_url(url: str) -> None:
    """Raise `StoreError`, without quoting `url`, if it does not name a supported database. Nothing is contacted."""
    from service.storage.database.postgres import parse_postgres_url  # noqa: PLC0415 - not needed for SQLite

    parse_postgres_url(url)


def open_file(path: Path, *, durability: Durability = "normal", retry_seconds: float = RETRY_SECONDS) -> Database:
    """Open SQLite's file at `path`, creating it if missing. Raises `StoreError`."""
    try:
        backend = SqliteBackend.open(path, durability)
    except (OSError, SQLAlchemyError, StoreError) as error:
        raise StoreError(f"The session database {path} cannot be used: {root_cause(error)}") from error
    return Database(backend, retry_seconds=retry_seconds)
