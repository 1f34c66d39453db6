"""Keeps SQLite's write-ahead log short where nobody waits for it.

What was committed has to be copied from the log into the database at times, and both flushed to the disk. SQLite would
do that inside a commit, which then takes as long as the disk: several milliseconds in every hundredth turn.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from service.concurrency import Worker, spawn

#: The log is looked after when so many commits were made or it has grown by so much.
_COMMITS = 250
_GROWN_BYTES = 4 * 1024 * 1024

#: A log that writers never leave alone long enough to be emptied is emptied between two commits once it is so long; it
#: is short work then, most of it has been copied. A longer file is cut to this when it is begun anew.
LIMIT_BYTES = 16 * 1024 * 1024
_PAGE_BYTES = 4096

_log = logging.getLogger("openclaw.state")


class Checkpointer:
    """Empties the log of the database file `path` in a thread and through a connection of its own.

    `between_commits` runs a job with the connection that writes, while no transaction is open.
    """

    def __init__(self, path: Path, between_commits: Callable[[Callable[[sqlite3.Connection], object]], object]) -> None:
        self._log_file = path.with_name(f"{path.name}-wal")
        self._between_commits = between_commits
        self._commits = self._size = 0
        self._busy = self._closed = False
        self._worker = Worker()
        try:
            self._connection: sqlite3.Connection = self._worker.run(_connect, path)
        except BaseException:
            self._worker.close()
            raise

    def note_commit(self) -> None:
        """Something was committed."""
        self._commits += 1
        if not self._busy and (self._commits >= _COMMITS or self._file_bytes() >= self._size + _GROWN_BYTES):
            self._busy = True
            spawn(self._empty)

    def close(self) -> None:
        """Finish what was begun and let go of the file."""
        self._closed = True
        self._worker.run(self._connection.close)
        self._worker.close()

    def _empty(self) -> None:
        if self._closed:
            return
        try:
            self._commits = 0
            pages = self._worker.run(checkpoint, self._connection)
            if pages * _PAGE_BYTES > LIMIT_BYTES and not self._closed:
                self._between_commits(checkpoint)
            self._size = self._file_bytes()
        except sqlite3.Error as error:
            _log.warning("the write-ahead log %s could not be emptied: %s", self._log_file, error)
        finally:
            self._busy = False

    def _file_bytes(self) -> int:
        with suppress(OSError):
            return self._log_file.stat().st_size
        return 0


def checkpoint(connection: sqlite3.Connection) -> int:
    """Copy what can be copied without holding up anybody; how many pages the log has, 0 where others are at it."""
    busy, pages, _copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return 0 if busy else max(0, pages)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)
