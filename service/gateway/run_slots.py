"""Limit the number of concurrent runs, with a bounded waiting room that its callers share; further runs are refused.

The callers get free slots in turn, however many of their runs wait. An interrupted waiter leaves the room.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from service.core.concurrency import Event
from service.core.errors import GatewayError
from service.core.principal import Principal
from service.gateway.fair_queue import FairQueue
from service.storage.sessions.keys import SessionKey

#: Places of one caller in the waiting room per slot.
WAITING_PER_SLOT = 4

#: All callers together have so many times the places of one, and each always has one.
_ROOM_FOR_CALLERS = 4


def turn_of(principal: Principal, session: SessionKey) -> tuple[str, str]:
    """Return whose turn a run is: the caller's, and there the session's; runs without a session share one turn."""
    return principal.owner or principal.key_id or "", "" if session.fresh else session.key


class RunLimiter:
    """Slots for `limit` concurrent runs; `None` means no limit.

    Runs are of a caller and, below that, of parts that share its turns (`turn_of`).
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._running = 0
        self._first: deque[Event] = deque()
        self._waiting: FairQueue[Event] = FairQueue()

    def enter(self, timeout_seconds: float | None = None, turn: tuple[str, str] = ("", "")) -> None:
        """Wait for a slot and take it; `leave` returns it.

        Raises `GatewayError` (`too_many_runs`) at once if the room is full, and after `timeout_seconds`.
        """
        if self._limit is None or self._running < self._limit:
            self._running += 1
            return
        places, own = self._limit * WAITING_PER_SLOT, self._waiting.size_of(turn[0])
        if own >= places or (own and self._waiting.size >= places * _ROOM_FOR_CALLERS):
            raise _no_room(
                f"{self._limit} runs are going on and {self._waiting.size} wait, {own} of them of this caller"
            )
        admitted = Event()
        self._waiting.push(turn, admitted)
        if not self._wait(admitted, timeout_seconds, turn):
            raise _no_room(f"This run waited for all of its time ({timeout_seconds or 0:g} s) while others go on")

    def reenter(self) -> None:
        """Take a slot for a run that has begun and left, before those that wait; never refused."""
        if self._limit is None or self._running < self._limit:
            self._running += 1
            return
        admitted = Event()
        self._first.append(admitted)
        self._wait(admitted, None, None)

    def leave(self) -> None:
        """Return the slot; the longest waiter of the caller whose turn it is gets it."""
        self._running -= 1
        self._hand_over()

    def resize(self, limit: int | None) -> None:
        """Change the limit. Below the number of running runs, those continue and none begins until enough end."""
        self._limit = limit
        self._hand_over()

    def _wait(self, admitted: Event, timeout_seconds: float | None, turn: tuple[str, str] | None) -> bool:
        try:
            handed_over = bool(admitted.wait(timeout_seconds))  # by a `leave`
        except BaseException:
            self._give_up(admitted, turn)
            raise
        if not handed_over:
            self._give_up(admitted, turn)
        return handed_over

    def _give_up(self, admitted: Event, turn: tuple[str, str] | None) -> None:
        if admitted.is_set():
            self.leave()
        elif turn is None:
            self._first.remove(admitted)
        else:
            self._waiting.remove(turn, admitted)

    def _hand_over(self) -> None:
        while (self._first or self._waiting.size) and (self._limit is None or self._running < self._limit):
            self._running += 1
            (self._first.popleft() if self._first else self._waiting.pop()).set()


class RunSlot:
    """The slot of one run, which takes the turn of its caller."""

    def __init__(self, limiter: RunLimiter, turn: tuple[str, str] = ("", "")) -> None:
        self._limiter = limiter
        self._turn = turn
        self._held = False

    def take(self, timeout_seconds: float) -> None:
        """Wait for a slot. Raises as `RunLimiter.enter`."""
        self._limiter.enter(timeout_seconds, self._turn)
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
