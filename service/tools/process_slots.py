"""Limit the processes that tools run concurrently, so that tool calls do not slow down other requests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field

from service.core.concurrency import Semaphore
from service.core.dataclass import record
from service.tools.tool import ToolError

_PER_CORE = 2


class ProcessSlots:
    """A limit of `limit` processes, by default two per core. Others wait in a queue."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit or _PER_CORE * (os.cpu_count() or 1)
        self._free = Semaphore(self.limit)

    @contextmanager
    def hold(self, wait_seconds: float) -> Iterator[None]:
        """Hold a slot while the block runs. Raises `ToolError` if none is free within `wait_seconds`."""
        if not self._free.acquire(timeout=wait_seconds):
            raise ToolError(
                f"The gateway is busy: {self.limit} tool processes are running and none ended within "
                f"{wait_seconds:g} seconds. Try again later."
            )
        try:
            yield
        finally:
            self._free.release()


@record
class ToolSlots:
    """The slots of a gateway process: for searches and page conversions, and for commands, which may take longer."""

    searches: ProcessSlots = field(default_factory=ProcessSlots)
    commands: ProcessSlots = field(default_factory=ProcessSlots)
