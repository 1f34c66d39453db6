"""Copies of SQLite's file: one of a database in use, and one put in its place."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from itertools import count
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from service.storage.database.errors import StoreError, root_cause
from service.storage.database.inspection import SUFFIXES, inspect_file

_BUSY_SECONDS = 60.0
#: The bytes of its file that SQLite locks: every connection to a WAL database holds some of them as long as it is open.
_LOCK_START, _LOCK_BYTES = 0x40000000, 512


def back_up(source: Path, target: Path) -> None:
    """Write the database `source` to `target`, readable by its owner alone, as it is at one moment.

    The gateway goes on meanwhile. `target` is replaced whole, or not at all. Raises `StoreError`, also for a `target`
    that is the database itself or no regular file.
    """
    _check(source)
    _check_target(source, target)
    with _replacing(target) as new, closing(_connect(source)) as connection:
        connection.execute("VACUUM INTO ?", (str(new),))


def restore(backup: Path, target: Path) -> Path | None:
    """Put a copy of `backup` in place of the database `target`; return where what was there is now.

    A damaged `target` is replaced, too. Raises `StoreError` if `backup` is damaged, of a newer version or no such
    database, and if `target` is in use.
    """
    _check(backup)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _replacing(target) as new:
        with closing(_connect(backup)) as connection:
            connection.execute("VACUUM INTO ?", (str(new),))
        _give(new, (target if target.exists() else target.parent).stat())
        with _unused(target) if target.exists() else nullcontext():
            kept = _set_aside(target)
    return kept


def _give(path: Path, owned: os.stat_result) -> None:
    """Give the file to the owner of what `owned` describes: root must not keep it from the gateway's user."""
    with suppress(PermissionError):  # only root may give files away
        os.chown(path, owned.st_uid, owned.st_gid)


def _set_aside(path: Path) -> Path | None:
    """Rename the database with all that SQLite keeps beside it; return its new path, `None` if there is none.

    SQLite would apply a `-wal` or `-journal` that is left, also of a database that was deleted, to the next one.
    """
    kept = _unused_name(path)
    for suffix in SUFFIXES:
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").replace(f"{kept}{suffix}")
    return kept if kept.exists() else None


def _unused_name(path: Path) -> Path:
    """Return a name beside `path` for what is replaced; what has been replaced before is kept, too."""
    names = (f"{path}.replaced{f'.{number}' if number > 1 else ''}" for number in count(1))
    return next(Path(one) for one in names if not any(os.path.lexists(f"{one}{suffix}") for suffix in SUFFIXES))


def _check_target(source: Path, target: Path) -> None:
    real = os.path.realpath(source)
    for own in (f"{real}{suffix}" for suffix in SUFFIXES):
        if os.path.realpath(target) == own or _is_same(target, Path(own)):
            raise StoreError(f"{target} belongs to the database itself: name another file.")
    if os.path.lexists(target) and not stat.S_ISREG(target.lstat().st_mode):
        raise StoreError(f"{target} is not a regular file: name another one.")


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # one of them is missing
        return False


def _check(path: Path) -> None:
    if not path.is_file():
        raise StoreError(f"{path} does not exist.")
    try:
        state = inspect_file(path)
        with closing(_connect(path)) as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except (OSError, SQLAlchemyError, sqlite3.Error) as error:
        raise StoreError(f"{path} cannot be read: {root_cause(error)}") from None
    if found != "ok":
        raise StoreError(f"{path} is damaged: {found}.")
    if state.revision is None:
        raise StoreError(f"{path} is not a database of OpenClaw Gateway.")
    if state.is_newer:
        raise StoreError(f"{path} has the schema {state.revision} of a newer version of this program.")


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=_BUSY_SECONDS, isolation_level=None)


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Yield the path of a new private file that takes the place of `target` once the block has ended."""
    new = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        yield new
        with new.open("rb") as written:
            os.fsync(written.fileno())
        new.replace(target)
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error  # without the name of the new file
        raise StoreError(f"{target} cannot be written: {reason}") from error
    finally:
        with suppress(FileNotFoundError):
            new.unlink()


@contextmanager
def _unused(path: Path) -> Iterator[None]:
    """Keep everybody from the database during the block. Raises `StoreError` if somebody has it open."""
    with suppress(sqlite3.DatabaseError), closing(_connect(path)) as connection:  # in use, or damaged
        connection.execute("PRAGMA busy_timeout = 0")
        # Only the last connection may leave the journal mode of the gateway. It leaves nothing beside the file.
        connection.execute("PRAGMA journal_mode = DELETE")
    with path.open("rb+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, _LOCK_BYTES, _LOCK_START)
        except BlockingIOError:
            raise StoreError(f"{path} is in use: stop the gateway and all commands.") from None
        yield
