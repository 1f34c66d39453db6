"""How many runs go on at once: a bounded number, a bounded queue behind it, and then an honest refusal.

First in, first out; a waiter that is interrupted gives its place up.
"""

from __future__ import annotations

from collections import deque

from service.core.concurrency import Event
from service.core.errors import GatewayError

#: How many may wait for each one that may run.
WAITING_PER_SLOT = 4


class RunLimiter:
    """Room for `limit` runs at once; `None` is no limit."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._running = 0
        self._waiting: deque[Event] = deque()

    def enter(self, timeout_seconds: float | None = None) -> None:
        """Wait for room and take it; the caller gives it back with `leave`.

        Raises `GatewayError` (`too_many_runs`) at once when too many wait already, and when `timeout_seconds` have
        passed.
        """
        if self._limit is None or self._running < self._limit:
            self._running += 1
            return
        if len(self._waiting) >= self._limit * WAITING_PER_SLOT:
            raise _no_room(f"{self._limit} runs are going on and {len(self._waiting)} wait")
        turn = Event()
        self._waiting.append(turn)
        try:
            handed_over = turn.wait(timeout_seconds)  # by whoever leaves
        except BaseException:
            self._give_up(turn)
            raise
        if not handed_over:
            self._give_up(turn)
            raise _no_room(f"This run waited for all of its time ({timeout_seconds or 0:g} s) while others go on")

    def leave(self) -> None:
        """Give the room back, to whoever has waited longest."""
        self._running -= 1
        self._hand_over()

    def resize(self, limit: int | None) -> None:
        """Have room for `limit` runs from now on. Fewer than run already lets those end, and nobody in before that."""
        self._limit = limit
        self._hand_over()

    def _give_up(self, turn: Event) -> None:
        if turn.is_set():
            self.leave()
        else:
            self._waiting.remove(turn)

    def _hand_over(self) -> None:
        while self._waiting and (self._limit is None or self._running < self._limit):
            self._running += 1
            self._waiting.popleft().set()


def _no_room(why: str) -> GatewayError:
    text = f"{why}: that is all that agents.defaults.maxConcurrent allows. Try again soon."
    return GatewayError("too_many_runs", text, headers={"Retry-After": "1"})
