"""A FIFO lock per session.

Sessions are independent of each other, and an unused session costs nothing. The queue orders the runs of one process;
between processes the lease in the database decides (`service.storage.runs.beginning`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Self

from service.core.concurrency import Event
from service.core.errors import GatewayError


class QueueEntry:
    """A position in a session's queue. The first entry holds the session; leaving the `with` block releases it."""

    __slots__ = ("_granted", "_queue", "_release")

    def __init__(self, queue: deque[Event], granted: Event, leave: Callable[[], None]) -> None:
        self._queue = queue
        self._granted = granted
        self._release = leave

    @property
    def is_first(self) -> bool:
        """True if this entry holds the session."""
        return self._queue[0] is self._granted

    def wait(self, timeout_seconds: float | None) -> None:
        """Wait until this entry holds the session.

        Raises `GatewayError` (`session_busy`) after `timeout_seconds`; `None` waits without limit. On an error, or when
        an exception is thrown into the waiting greenlet, the entry leaves the queue.
        """
        try:
            if not self.is_first:
                self._granted.wait(timeout_seconds)
        except BaseException:
            self.release()
            raise
        if not self.is_first:
            self.release()
            raise session_busy(timeout_seconds)

    def release(self) -> None:
        """Pass the session to the next entry. A second call is a no-op."""
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class SessionQueue:
    """The queues of all sessions, first in, first out for each key."""

    def __init__(self) -> None:
        # The first event of a queue belongs to the holder of the session, the others to waiters.
        self._queues: dict[str, deque[Event]] = {}

    def __len__(self) -> int:
        """Number of sessions in use."""
        return len(self._queues)

    def join(self, key: str) -> QueueEntry:
        """Append an entry to the queue of the session `key` without waiting; the caller releases it."""
        granted = Event()
        queue = self._queues.setdefault(key, deque())
        queue.append(granted)
        return QueueEntry(queue, granted, partial(self._release, key, granted))

    def acquire(self, key: str, timeout_seconds: float | None) -> QueueEntry:
        """Join the queue and wait; raises like `QueueEntry.wait`. Not reentrant."""
        entry = self.join(key)
        entry.wait(timeout_seconds)
        return entry

    def _release(self, key: str, granted: Event) -> None:
        queue = self._queues.get(key)
        if queue is None or granted not in queue:
            return
        queue.remove(granted)
        if queue:
            queue[0].set()  # no effect if the first entry is unchanged
        else:
            del self._queues[key]


def session_busy(waited_seconds: float | None) -> GatewayError:
    """Error for a run that waited too long for its session."""
    return GatewayError(
        "session_busy",
        f"Another run of this session was still active after {waited_seconds} seconds. "
        "Retry when it has ended, or use another session.",
    )
