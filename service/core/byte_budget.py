"""One budget of memory for the data in flight in a process: request bodies, messages, and output that is not read yet.

Incoming data waits for room and is refused if none comes; while others wait, senders that are too slow make room.
Data whose beginning is here already goes first, oldest first, because its end gives room back; if nothing of it can go
on, the youngest is refused. Runs do not wait for their readers: when output exceeds the limit, its largest holder is
evicted, and those that produce more pause until that has left. A quarter of the limit is reserved for output and small
requests, so that large bodies do not take all of it.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from time import monotonic

from service.core.concurrency import Event, sleep, spawn
from service.core.errors import GatewayError

DEFAULT_BYTES = 512 * 1024 * 1024

#: How long incoming data waits for room before it is refused.
WAIT_SECONDS = 5.0

#: The environ key of the `Hold` of a request's body; the server releases it with the response.
HOLD_KEY = "openclaw.hold"

_SMALL_BYTES = 1024 * 1024
_TRIM_AFTER_BYTES = 16 * 1024 * 1024
_TRIM_DELAY_SECONDS = 1.0
_POLL_SECONDS = 0.25
_RETRY_AFTER_SECONDS = 5

# A sender may fall behind this rate for so long; then it makes room for others that wait.
_GRACE_SECONDS = 2.0
_SLOW_BYTES_A_SECOND = 64 * 1024


class Hold:
    """The part of a budget that one body, message, connection or run takes up.

    `evict` asks the holder to end soon. `arrived_bytes` counts the incoming data, `is_arriving` while more is expected.
    A hold has one owner until `share`; the last `release` gives its bytes back.
    """

    def __init__(self, budget: ByteBudget, evict: Callable[[], None] | None = None) -> None:
        self.size = 0
        self.arrived_bytes = 0
        self.is_arriving = False
        self.is_evicted = False
        self.number = 0  # in the order in which holders got their first bytes
        self._budget = budget
        self._evict = evict
        self._began_at = 0.0
        self._owners = 1

    @property
    def is_evictable(self) -> bool:
        """True if the holder can be asked to end and was not yet."""
        return self._evict is not None and not self.is_evicted and self.size > 0

    def take(self, size: int) -> None:
        """Add bytes of incoming data; waits for room. Raises `GatewayError` (`overloaded`)."""
        self._budget.take(self, size)

    def begin_arrival(self) -> None:
        """Expect incoming data from this moment on."""
        self.is_arriving = True
        self._began_at = self._budget.clock()

    def add(self, change: int) -> None:
        """Add bytes of output, or give some back, without waiting."""
        self._budget.count(self, change)

    def pause_output(self) -> None:
        """Wait, not for long, until evicted holders have given enough room back. Holders of little need not wait."""
        if self.size and not self.is_evicted:
            self._budget.pause_output()

    def share(self) -> Hold:
        """Add an owner and return this hold."""
        self._owners += 1
        return self

    def release(self) -> None:
        """Remove an owner; the last one gives all bytes back. Later calls are no-ops."""
        self._owners -= 1
        if self._owners == 0 and self.size:
            self._budget.forget(self)

    def is_slow(self) -> bool:
        """Return True if the incoming data arrives too slowly to occupy room that others wait for."""
        elapsed = self._budget.clock() - self._began_at - _GRACE_SECONDS
        return self.is_arriving and elapsed > 0 and self.arrived_bytes < elapsed * _SLOW_BYTES_A_SECOND

    def evict(self) -> None:
        """Ask the holder to end soon."""
        self.is_evicted = True
        if self._evict is not None:
            self._evict()


class _Waiting:
    """Incoming data that waits for room until `give_up_at`."""

    def __init__(self, hold: Hold, size: int, give_up_at: float) -> None:
        self.hold = hold
        self.size = size
        self.give_up_at = give_up_at
        self.admitted = Event()

    @property
    def rank(self) -> tuple[bool, int]:
        """Its place in the queue: first those with a beginning, oldest first; then those that bring all, in order."""
        return self.hold.size == 0, self.hold.number


class ByteBudget:
    """The bytes in flight of one process. `clock` gives seconds.

    `on_freed` is called in a greenlet a moment after much was given back: the time to return memory to the system.
    """

    def __init__(
        self,
        limit_bytes: int = DEFAULT_BYTES,
        *,
        wait_seconds: float = WAIT_SECONDS,
        on_freed: Callable[[], None] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.clock = clock
        self._wait_seconds = wait_seconds
        self._on_freed = on_freed
        self._freed_bytes = 0
        self._staying_bytes = 0  # of holders that were not evicted
        self._has_room = Event()
        self._holds: dict[Hold, None] = {}  # those with bytes, oldest first
        self._queue: list[_Waiting] = []
        self._counted_holds = 0
        self._refused_at = clock() - wait_seconds  # data whose beginning was here

    def hold(self, evict: Callable[[], None] | None = None) -> Hold:
        """Return an empty hold; `evict` asks its holder to end soon."""
        return Hold(self, evict)

    def resize(self, limit_bytes: int) -> None:
        """Change the limit; what is in flight stays."""
        self.limit_bytes = limit_bytes
        self._has_room.set()
        self._admit_waiting()

    def take(self, hold: Hold, size: int) -> None:
        """Add `size` incoming bytes to `hold`; waits for room. Raises `GatewayError` (`overloaded`)."""
        is_small = hold.size + size <= _SMALL_BYTES
        if not is_small:
            size = min(size, self._large_limit())  # what exceeds the budget alone has to be alone
        if self._fits(hold, size) and (is_small or not self._queue):
            self._add(hold, size)
            return
        waiting = _Waiting(hold, size, self.clock() + self._wait_seconds)
        insort(self._queue, waiting, key=lambda one: one.rank)
        try:
            self._wait(waiting)
        finally:
            if not waiting.admitted.is_set():
                self._queue.remove(waiting)

    def count(self, hold: Hold, change: int) -> None:
        """Add `change` bytes of output to `hold`, or give them back; beyond the limit the largest holder is evicted."""
        self._add(hold, change)
        if change < 0:
            self._admit_waiting()
        while self._staying_bytes > self.limit_bytes:
            evictable = [one for one in self._holds if one.is_evictable and not one.is_arriving]
            if not evictable:
                return
            self._evict(max(evictable, key=lambda one: one.size))

    def pause_output(self) -> None:
        """Wait while more is in flight than the limit allows, until evicted holders have left."""
        if self.used_bytes > self.limit_bytes:
            self._has_room.clear()
            self._has_room.wait(self._wait_seconds)

    def forget(self, hold: Hold) -> None:
        """Give back all bytes of `hold`."""
        self._add(hold, -hold.size)
        if self._queue:
            self._admit_waiting()

    def _wait(self, waiting: _Waiting) -> None:
        while not waiting.admitted.is_set():
            if self._gives_up(waiting):
                text = "The gateway has as much data in flight as it may (gateway.maxInFlightBytes). Try again soon."
                raise GatewayError("overloaded", text, headers={"Retry-After": str(_RETRY_AFTER_SECONDS)})
            for hold in [one for one in self._holds if one.is_evictable and one.is_slow()]:
                self._evict(hold)
            self._admit_waiting()
            left = waiting.give_up_at - self.clock()
            waiting.admitted.wait(min(left, _POLL_SECONDS) if left > 0 else _POLL_SECONDS)

    def _gives_up(self, waiting: _Waiting) -> bool:
        """Return True if `waiting` has waited for too long. Of those with a beginning, the youngest gives up first.

        Then the others wait a moment for its room: if all gave up together, none of their beginnings were of use.
        """
        now = self.clock()
        if not waiting.hold.size or now < waiting.give_up_at:
            return now >= waiting.give_up_at
        youngest = max(
            (one for one in self._queue if one.hold.size and now >= one.give_up_at), key=lambda one: one.rank
        )
        if youngest is not waiting or now < self._refused_at + 2 * _POLL_SECONDS:
            return False
        self._refused_at = now
        return True

    def _admit_waiting(self) -> None:
        while self._queue and self._fits(self._queue[0].hold, self._queue[0].size):
            waiting = self._queue.pop(0)
            self._add(waiting.hold, waiting.size)
            waiting.admitted.set()

    def _fits(self, hold: Hold, size: int) -> bool:
        limit = self.limit_bytes if hold.size + size <= _SMALL_BYTES else self._large_limit()
        return self._staying_bytes + size <= limit

    def _large_limit(self) -> int:
        return self.limit_bytes * 3 // 4

    def _add(self, hold: Hold, change: int) -> None:
        if not hold.number:
            self._counted_holds += 1
            hold.number = self._counted_holds
        hold.size += change
        self.used_bytes += change
        if not hold.is_evicted:
            self._staying_bytes += change
        if change < 0:
            self._count_freed(-change)
            if self.used_bytes <= self.limit_bytes < self.used_bytes - change:
                self._has_room.set()
        if hold.size:
            self._holds[hold] = None
        else:
            self._holds.pop(hold, None)

    def _count_freed(self, size: int) -> None:
        is_due = self._freed_bytes < _TRIM_AFTER_BYTES <= self._freed_bytes + size
        self._freed_bytes += size
        if is_due and self._on_freed is not None:
            spawn(self._trim_later, self._on_freed)

    def _trim_later(self, on_freed: Callable[[], None]) -> None:
        sleep(_TRIM_DELAY_SECONDS)
        self._freed_bytes = 0
        on_freed()

    def _evict(self, hold: Hold) -> None:
        self._staying_bytes -= hold.size
        hold.evict()
