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


def fairness_key(principal: Principal, session: SessionKey) -> tuple[str, str]:
    """Return the caller of a run and its session; runs without a session share one key."""
    return principal.owner or principal.key_id or "", "" if session.fresh else session.key


class RunSlots:
    """Slots for `limit` concurrent runs; `None` means no limit.

    Runs are of a caller and, below that, of parts that share its slots (`fairness_key`).
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._running = 0
        self._first: deque[Event] = deque()
        self._waiting: FairQueue[Event] = FairQueue()

    def enter(self, timeout_seconds: float | None = None, key: tuple[str, str] = ("", "")) -> None:
        """Wait for a slot and take it; `leave` returns it.

        Raises `GatewayError` (`too_many_runs`) at once if the room is full, and after `timeout_seconds`.
        """
        if self._limit is None or self._running < self._limit:
            self._running += 1
            return
        places, own = self._limit * WAITING_PER_SLOT, self._waiting.size_of(key[0])
        if own >= places or (own and self._waiting.size >= places * _ROOM_FOR_CALLERS):
            waiting = f"{self._waiting.size} runs wait, {own} of them from this caller"
            raise _no_room(f"All {self._limit} slots are in use, and {waiting}")
        admitted = Event()
        self._waiting.push(key, admitted)
        if not self._wait(admitted, timeout_seconds, key):
            raise _no_room(f"No slot became free within {timeout_seconds or 0:g} s")

    def reenter(self) -> None:
        """Take a slot for a run that has begun and left, before those that wait; never refused."""
        if self._limit is None or self._running < self._limit:
            self._running += 1
            return
        admitted = Event()
        self._first.append(admitted)
        self._wait(admitted, None, None)

    def leave(self) -> None:
        """Return the slot; the longest waiter of the next caller gets it."""
        self._running -= 1
        self._hand_over()

    def resize(self, limit: int | None) -> None:
        """Change the limit. Below the number of running runs, those continue and none begins until enough end."""
        self._limit = limit
        self._hand_over()

    def _wait(self, admitted: Event, timeout_seconds: float | None, key: tuple[str, str] | None) -> bool:
        try:
            handed_over = bool(admitted.wait(timeout_seconds))  # by a `leave`
        except BaseException:
            self._give_up(admitted, key)
            raise
        if not handed_over:
            self._give_up(admitted, key)
        return handed_over

    def _give_up(self, admitted: Event, key: tuple[str, str] | None) -> None:
        if admitted.is_set():
            self.leave()
        elif key is None:
            self._first.remove(admitted)
        else:
            self._waiting.remove(key, admitted)

    def _hand_over(self) -> None:
        while (self._first or self._waiting.size) and (self._limit is None or self._running < self._limit):
            self._running += 1
            (self._first.popleft() if self._first else self._waiting.pop()).set()


class RunSlot:
    """The slot of one run, counted for its `fairness_key`."""

    def __init__(self, slots: RunSlots, key: tuple[str, str] = ("", "")) -> None:
        self._slots = slots
        self._fairness_key = key
        self._held = False

    def take(self, timeout_seconds: float) -> None:
        """Wait for a slot. Raises as `RunSlots.enter`."""
        self._slots.enter(timeout_seconds, self._fairness_key)
        self._held = True

    def give_back(self) -> None:
        """Return the slot if it is held."""
        if self._held:
            self._held = False
            self._slots.leave()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Give others the slot while the block runs. It is not taken again if the block raises."""
        self.give_back()
        yield
        self._slots.reenter()
        self._held = True


def _no_room(why: str) -> GatewayError:
    text = f"{why} (agents.defaults.maxConcurrent). Try again soon."
    return GatewayError("too_many_runs", text, headers={"Retry-After": "1"})
