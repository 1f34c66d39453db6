"""Checkpoint SQLite's write-ahead log in the background.

SQLite would checkpoint inside a commit, which then waits for the disk: several milliseconds in every hundredth turn.
"""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

from service.core.concurrency import Event, WorkerThread, spawn

#: A checkpoint is due after this many commits or this much growth of the log.
_COMMITS_PER_CHECKPOINT = 250
_GROWTH_BYTES = 4 * 1024 * 1024

#: Where writers are faster than the disk, commits wait for the checkpoint once the log is this long. When the log is
#: reset it is truncated to this size.
LIMIT_BYTES = 8 * 1024 * 1024
_MAX_WAIT_SECONDS = 0.25

_log = logging.getLogger("openclaw.storage")


class Checkpointer:
    """Checkpoints the log of the database file `path` in its own thread, on its own connection."""

    def __init__(self, path: Path) -> None:
        self._log_file = f"{path}-wal"
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
        """Wait briefly for a running checkpoint if the log is too long."""
        if not self._idle.is_set() and self._file_bytes() > LIMIT_BYTES:
            self._idle.wait(_MAX_WAIT_SECONDS)

    def note_commit(self, log_bytes: int) -> None:
        """Count a commit, after which the log has `log_bytes`, and start a checkpoint if one is due."""
        self._commits += 1
        is_due = self._commits >= _COMMITS_PER_CHECKPOINT or log_bytes >= self._size + _GROWTH_BYTES
        if is_due and self._idle.is_set() and not self._closed:
            self._idle.clear()
            spawn(self._checkpoint)

    def close(self) -> None:
        """Finish a running checkpoint and close the file."""
        self._closed = True
        self._idle.wait()
        self._worker.run(self._connection.close)
        self._worker.close()

    def _checkpoint(self) -> None:
        self._commits = 0
        try:
            self._copy()
            if self._file_bytes() > LIMIT_BYTES:
                self._copy()  # later commits; none arrive during this one, so that the log can be reset
            self._fails = False
        except sqlite3.Error as error:
            if not self._fails:
                _log.warning("checkpoint of the write-ahead log %s failed: %s", self._log_file, error)
            self._fails = True
        finally:
            self._size = self._file_bytes()
            self._idle.set()

    def _copy(self) -> None:
        self._worker.run(_checkpoint, self._connection)

    def _file_bytes(self) -> int:
        try:
            return Path(self._log_file).stat().st_size
        except OSError:
            return 0


def _checkpoint(connection: sqlite3.Connection) -> None:
    """Checkpoint as much as possible without blocking readers or writers."""
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)
