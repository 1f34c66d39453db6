"""A deadline whose time can stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from service.core.concurrency import Deadline, Timeout


class PausableDeadline(Timeout):
    """Raises `Deadline` inside its block after `seconds`, less those in blocks of `paused`. For one use."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds, Deadline)
        self._ends_at = monotonic() + seconds

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the time while the block, in the same greenlet, runs."""
        left = self._ends_at - monotonic()
        self.__exit__()
        try:
            yield
        finally:
            self._ends_at = monotonic() + left
            super().__init__(left, Deadline)
            self.__enter__()
