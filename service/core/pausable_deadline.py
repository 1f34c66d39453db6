"""A deadline whose time can stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from service.core.concurrency import Deadline, Timeout


class PausableDeadline(Timeout):
    """Raises `Deadline` inside its blocks once they have taken `seconds` together; blocks of `paused` do not count."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds, Deadline)

    __enter__ = Timeout.resume

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the time while the block, in the same greenlet, runs."""
        self.__exit__()
        try:
            yield
        finally:
            self.resume()
