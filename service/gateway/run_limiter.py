"""Limit the number of concurrent runs, with a bounded FIFO queue; further runs are refused.

An interrupted waiter leaves the queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from service.core.concurrency import Event
from service.core.errors import GatewayError

#: Size of the queue per slot.
WAITING_PER_SLOT = 4


class RunLimiter:
    """Slots for `limit` concurrent runs; `None` means no limit."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._running = 0
        self._waiting: deque[Event] = deque()

    def enter(self, timeout_seconds: float | None = None) -> None:
        """Wait for a slot and take it; `leave` returns it.

        Raises `GatewayError` (`too_many_runs`) at once if the queue is full, and after `timeout_seconds`.
        """
        if self._limit is None or self._running < self._limit:
            self._running += 1
            return
        if len(self._waiting) >= self._limit * WAITING_PER_SLOT:
            raise _no_room(f"{self._limit} runs are going on and {len(self._waiting)} wait")
        turn = Event()
        self._waiting.append(turn)
        if not self._wait(turn, timeout_seconds):
            raise _no_room(f"This run waited for all of its time ({timeout_seconds or 0:g} s) while others go on")

    def reenter(self) -> None:
        """Take a slot for a run that has begun and left, before those that wait; never refused."""
        if self._limit is None or self._running < self._limit:
            self._running += 1
            return
        turn = Event()
        self._waiting.appendleft(turn)
        self._wait(turn, None)

    def leave(self) -> None:
        """Return the slot; the longest waiter gets it."""
        self._running -= 1
        self._hand_over()

    def resize(self, limit: int | None) -> None:
        """Change the limit. Below the number of running runs, those continue and none begins until enough end."""
        self._limit = limit
        self._hand_over()

    def _wait(self, turn: Event, timeout_seconds: float | None) -> bool:
        try:
            handed_over = bool(turn.wait(timeout_seconds))  # by a `leave`
        except BaseException:
            self._give_up(turn)
            raise
        if not handed_over:
            self._give_up(turn)
        return handed_over

    def _give_up(self, turn: Event) -> None:
        if turn.is_set():
            self.leave()
        else:
            self._waiting.remove(turn)

    def _hand_over(self) -> None:
        while self._waiting and (self._limit is None or self._running < self._limit):
            self._running += 1
            self._waiting.popleft().set()


class RunSlot:
    """The slot of one run."""

    def __init__(self, limiter: RunLimiter) -> None:
        self._limiter = limiter
        self._held = False

    def take(self, timeout_seconds: float) -> None:
        """Wait for a slot. Raises as `RunLimiter.enter`."""
        self._limiter.enter(timeout_seconds)
        self._held = True

    def give_back(self) -> None:
        """Return the slot if it is held."""
        if self._held:
            self._held = False
            self._limiter.leave()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Give others the slot while the block runs. It is not taken again if the block raises."""
        self.give_back()
        yield
        self._limiter.reenter()
        self._held = True


def _no_room(why: str) -> GatewayError:
    text = f"{why}: that is all that agents.defaults.maxConcurrent allows. Try again soon."
    return GatewayError("too_many_runs", text, headers={"Retry-After": "1"})
