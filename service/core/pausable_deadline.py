"""A deadline whose time can stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from service.core.concurrency import Timeout, deadline


class PausableDeadline:
    """Raises `Deadline` inside its block after `seconds`, less those in blocks of `paused`. For one use."""

    def __init__(self, seconds: float) -> None:
        self._limit: Timeout = deadline(seconds)
        self._ends_at = monotonic() + seconds

    def __enter__(self) -> None:
        self._limit.__enter__()

    def __exit__(self, *exc_info: object) -> None:
        self._limit.__exit__(*exc_info)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the time while the block, in the same greenlet, runs."""
        left = self._ends_at - monotonic()
        self._limit.__exit__()
        try:
            yield
        finally:
            self._ends_at = monotonic() + left
            self._limit = deadline(left)
            self._limit.__enter__()
