"""One run at a time in each session.

A session belongs to whoever has been waiting longest; sessions never wait for one another; one that nobody is in
costs nothing. Lanes order the runs of one process; between processes the database decides
(`service.storage.runs.operations`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Self

from service.core.concurrency import Event
from service.core.errors import GatewayError


class Lane:
    """A place in the queue of one session; at its head the right to run there. Leaving its `with` block releases it."""

    __slots__ = ("_leave", "_queue", "_turn")

    def __init__(self, queue: deque[Event], turn: Event, leave: Callable[[], None]) -> None:
        self._queue = queue
        self._turn = turn
        self._leave = leave

    @property
    def is_first(self) -> bool:
        """Whether the session may be run in."""
        return self._queue[0] is self._turn

    def wait(self, timeout_seconds: float | None) -> None:
        """Wait until the session may be run in.

        Raises `GatewayError` (`session_busy`) after `timeout_seconds`; with `None` it waits as long as it takes. The
        place is given up then, as it is when an exception is thrown into the waiting greenlet.
        """
        try:
            if not self.is_first:
                self._turn.wait(timeout_seconds)
        except BaseException:
            self.release()
            raise
        if not self.is_first:
            self.release()
            raise session_busy(timeout_seconds)

    def release(self) -> None:
        """Let the next in the queue go on. Twice is a no-op."""
        self._leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class Lanes:
    """The queues of all sessions: first in, first out for each key."""

    def __init__(self) -> None:
        # The first event of a queue stands for whoever holds the session, the others for those who wait.
        self._queues: dict[str, deque[Event]] = {}

    def __len__(self) -> int:
        """How many sessions are in use."""
        return len(self._queues)

    def queue_up(self, key: str) -> Lane:
        """Take the last place in the queue of the session `key`, which the caller releases; does not wait."""
        turn = Event()
        queue = self._queues.setdefault(key, deque())
        queue.append(turn)
        return Lane(queue, turn, partial(self._leave, key, turn))

    def enter(self, key: str, timeout_seconds: float | None) -> Lane:
        """Queue up and wait; raises as `Lane.wait` does. Entering a session while holding it waits for oneself."""
        lane = self.queue_up(key)
        lane.wait(timeout_seconds)
        return lane

    def _leave(self, key: str, turn: Event) -> None:
        queue = self._queues.get(key)
        if queue is None or turn not in queue:
            return
        queue.remove(turn)
        if queue:
            queue[0].set()  # means nothing to a first that has been first all along
        else:
            del self._queues[key]


def session_busy(waited_seconds: float | None) -> GatewayError:
    """What whoever has waited too long for a session is told."""
    return GatewayError(
        "session_busy",
        f"Another run of this session was still going on after {waited_seconds} seconds. "
        "Try again when it has ended, or use another session.",
    )
