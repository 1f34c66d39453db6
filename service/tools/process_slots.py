"""A cap on the processes that tools run at once, so that callers of tools do not slow down everybody else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from service.core.concurrency import Semaphore
from service.tools.tool import ToolError

_PER_CORE = 2


class ProcessSlots:
    """Room for `limit` processes, by default two for each core; further ones wait in a queue."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit or _PER_CORE * (os.cpu_count() or 1)
        self._free = Semaphore(self.limit)

    @contextmanager
    def hold(self, wait_seconds: float) -> Iterator[None]:
        """Have room for one process while the block runs. Raises `ToolError` if there is none within the time."""
        if not self._free.acquire(timeout=wait_seconds):
            raise ToolError(
                f"The gateway is busy: {self.limit} programs of tools run already, and none ended within "
                f"{wait_seconds:g} seconds. Try again later."
            )
        try:
            yield
        finally:
            self._free.release()
