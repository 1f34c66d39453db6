"""One run at a time in each session.

A session belongs to whoever has been waiting longest; sessions never wait for one another; one that nobody is in
costs nothing. Lanes order the runs of one process; between processes the database decides
(`service.sessions.turns`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Self

from service.concurrency import Event
from service.errors import GatewayError


class Lane:
    """The right to run in one session, from `Lanes.enter` until `release`. Leaving its `with` block releases it."""

    __slots__ = ("_leave",)

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave

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

    def is_free(self, key: str) -> bool:
        """Whether nobody holds the session `key` or waits for it."""
        return key not in self._queues

    def enter(self, key: str, timeout_seconds: float | None) -> Lane:
        """Wait until the session `key` is free, take it and return its lane, which the caller releases.

        Raises `GatewayError` (`session_busy`) when its turn has not come after `timeout_seconds`; with `None` it
        waits as long as it takes. An exception thrown into the waiting greenlet gives its place up. Entering a
        session while holding it waits for oneself.
        """
        turn = Event()
        leave = partial(self._leave, key, turn)
        queue = self._queues.setdefault(key, deque())
        queue.append(turn)
        if queue[0] is turn:
            return Lane(leave)
        try:
            turn.wait(timeout_seconds)
        except BaseException:
            leave()
            raise
        if queue[0] is not turn:
            leave()
            raise session_busy(timeout_seconds)
        return Lane(leave)

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
