"""Keeps SQLite's write-ahead log short where nobody waits for it.

What was committed has to be copied from the log into the database at times, and both flushed to the disk. SQLite would
do that inside a commit, which then takes as long as the disk: several milliseconds in every hundredth turn.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from service.core.concurrency import Event, WorkerThread, spawn

#: The log is looked after when so many commits were made or it has grown by so much.
_COMMITS = 250
_GROWN_BYTES = 4 * 1024 * 1024

#: Where writers are faster than the disk, commits wait for the copying once the log is so long. What is longer all the
#: same is cut to this when the log begins anew.
LIMIT_BYTES = 8 * 1024 * 1024
_PATIENCE_SECONDS = 0.25

_log = logging.getLogger("openclaw.state")


class Checkpointer:
    """Empties the log of the database file `path` in a thread and through a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._log_file = path.with_name(f"{path.name}-wal")
        self._commits = self._size = 0
        self._idle = Event()
        self._idle.set()
        self._closed = self._fails = False
        self._worker = WorkerThread()
        try:
            self._connection: sqlite3.Connection = self._worker.run(_connect, path)
        except BaseException:
            self._worker.close()
            raise

    def wait_for_room(self) -> None:
        """Return when the log may grow, or after a moment: other processes may keep it from becoming shorter."""
        if not self._idle.is_set() and self._file_bytes() > LIMIT_BYTES:
            self._idle.wait(_PATIENCE_SECONDS)

    def note_commit(self) -> None:
        """Something was committed."""
        self._commits += 1
        is_due = self._commits >= _COMMITS or self._file_bytes() >= self._size + _GROWN_BYTES
        if is_due and self._idle.is_set() and not self._closed:
            self._idle.clear()
            spawn(self._empty)

    def close(self) -> None:
        """Finish what was begun and let go of the file."""
        self._closed = True
        self._idle.wait()
        self._worker.run(self._connection.close)
        self._worker.close()

    def _empty(self) -> None:
        self._commits = 0
        try:
            self._copy()
            if self._file_bytes() > LIMIT_BYTES:
                self._copy()  # what came meanwhile; nothing comes now, so that the log can begin anew
            self._fails = False
        except sqlite3.Error as error:
            if not self._fails:
                _log.warning("the write-ahead log %s cannot be emptied: %s", self._log_file, error)
            self._fails = True
        finally:
            self._size = self._file_bytes()
            self._idle.set()

    def _copy(self) -> None:
        self._worker.run(_checkpoint, self._connection)

    def _file_bytes(self) -> int:
        with suppress(OSError):
            return os.stat(self._log_file).st_size  # noqa: PTH116 - half of what pathlib takes, after every commit
        return 0


def _checkpoint(connection: sqlite3.Connection) -> None:
    """Copy what can be copied without holding up anybody."""
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)
