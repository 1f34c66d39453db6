"""Watch a file for changes by polling, which works on every file system and for every way of writing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from service.core.concurrency import sleep

_POLL_SECONDS = 0.5

#: Changes when a file is written, replaced or linked elsewhere; `None` while there is none.
_Stamp = tuple[int, int, int, int] | None


class FileWatch:
    """Detects changes of `path`, also behind symbolic links, within about a second."""

    def __init__(self, path: Path, poll_seconds: float = _POLL_SECONDS) -> None:
        self._path = path
        self._poll_seconds = poll_seconds
        self._seen = self._stamp()

    def follow(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` after each change, once two polls agree; does not return.

        This way a file that is being written is not read half, and a burst of changes counts once.
        """
        latest = self._seen
        while True:
            sleep(self._poll_seconds)
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
