"""Look at a database without changing it."""

from __future__ import annotations

import os
from pathlib import Path
from time import time

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from service.core.dataclass import record
from service.storage.database.errors import StoreError, root_cause
from service.storage.database.migrate import current_revision
from service.storage.database.open import FILE_NAME
from service.storage.database.schema import HEAD

#: SQLite's file, and what it keeps beside it.
SUFFIXES = ("", "-wal", "-shm", "-journal")

_CONNECT_SECONDS = 10


@record
class DatabaseState:
    """A database as it is: `revision` of its schema, `None` before the first start.

    `clock_ahead_seconds` is how far its server's clock is ahead of this machine's, 0 for a file.
    """

    name: str
    revision: str | None
    clock_ahead_seconds: float = 0.0

    @property
    def is_newer(self) -> bool:
        """True if only a newer version of this program can use it."""
        return self.revision is not None and self.revision > HEAD

    @property
    def is_current(self) -> bool:
        """True if its schema is that of this version."""
        return self.revision == HEAD


def inspect_database(url: str | None, state_dir: Path) -> DatabaseState:
    """Return the state of the database that `open_database` opens. Nothing is created or migrated.

    Raises `StoreError` if it cannot be reached or read.
    """
    try:
        if url is None:
            return inspect_file(state_dir / FILE_NAME)
        return _inspect_postgres(url)
    except ModuleNotFoundError as error:
        raise StoreError(f"state.url needs the driver: pip install '.[postgres]' ({error.name} is missing).") from None
    except (OSError, SQLAlchemyError) as error:
        raise StoreError(str(root_cause(error))) from error


def find_unwritable(path: Path) -> Path | None:
    """Return one of the files of SQLite's database `path` that this user cannot write: another user made it."""
    files = (Path(f"{path}{suffix}") for suffix in SUFFIXES)
    return next((one for one in files if os.access(one, os.F_OK) and not os.access(one, os.W_OK)), None)


def inspect_file(path: Path) -> DatabaseState:
    """Return the state of SQLite's file `path`, which may be missing. Raises `OSError` and SQLAlchemy's errors."""
    if not path.exists():
        return DatabaseState(str(path), None)
    engine = sa.create_engine(f"sqlite:///file:{path}?mode=ro&uri=true", poolclass=sa.NullPool)
    with engine.connect() as connection:
        return DatabaseState(str(path), current_revision(connection))


def _inspect_postgres(url: str) -> DatabaseState:
    from service.storage.database.postgres import parse_postgres_url  # noqa: PLC0415 - SQLite does not need the driver

    parsed = parse_postgres_url(url)
    engine = sa.create_engine(
        parsed, poolclass=sa.NullPool, hide_parameters=True, connect_args={"connect_timeout": _CONNECT_SECONDS}
    )
    with engine.connect() as connection:
        began = time()
        server = float(connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar_one())
        ahead = server - (began + time()) / 2
        name = f"{parsed.host or 'a local socket'}/{parsed.database or ''}"
        return DatabaseState(f"PostgreSQL at {name}", current_revision(connection), ahead)
