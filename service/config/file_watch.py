"""Noticing that a file was changed: by looking, which works on every file system and for every way of writing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from service.core.concurrency import sleep

_LOOK_SECONDS = 0.5

#: What of a file changes when it is written, renamed over or pointed elsewhere; `None` when it is not there.
_Stamp = tuple[int, int, int, int] | None


class FileWatch:
    """Sees every change of `path` since it was made, through symbolic links, within about a second."""

    def __init__(self, path: Path, look_seconds: float = _LOOK_SECONDS) -> None:
        self._path = path
        self._look_seconds = look_seconds
        self._seen = self._stamp()

    def follow(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` after each change, once the file has held still for a look; does not return.

        A file that is written slowly is not read by halves, and a burst of changes counts once.
        """
        latest = self._seen
        while True:
            sleep(self._look_seconds)
            before, latest = latest, self._stamp()
            if latest == before and latest != self._seen:
                self._seen = latest
                on_change()

    def _stamp(self) -> _Stamp:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
