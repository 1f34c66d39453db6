"""A log of what was used in a sliding window of time. Free of I/O; times are integers in milliseconds."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from service.core.rate_limits import Quota

#: Longer logs are made coarser: times are rounded up to this part of the window.
MAX_ENTRIES = 256
_STEPS = 200


class SlidingLog:
    """Amounts with the times of their use; `used` is the sum of those that are in the window.

    An amount leaves a window's length after its time. In a log of many amounts, times are rounded up, so that an amount
    stays up to a two-hundredth of the window too long, and never too short. `paced_from_ms` is when a full log had
    room again after a refusal; it is remembered for two windows.
    """

    def __init__(self, window_ms: int, entries: Iterable[tuple[int, int]] = ()) -> None:
        self._window_ms = window_ms
        self._times: list[int] = []
        self._amounts: list[int] = []
        self.paced_from_ms: int | None = None
        for at_ms, amount in entries:
            if amount == 0:
                self.paced_from_ms = at_ms
            else:
                self._times.append(at_ms)
                self._amounts.append(amount)
        self.used = sum(self._amounts)

    @property
    def entries(self) -> list[tuple[int, int]]:
        """The times and amounts, oldest first, and `paced_from_ms` as an amount of 0."""
        refused = [] if self.paced_from_ms is None else [(self.paced_from_ms, 0)]
        return [*refused, *zip(self._times, self._amounts, strict=True)]

    def expire(self, now_ms: int) -> None:
        """Forget what has left the window that ends at `now_ms`."""
        times, gone = self._times, 0
        while gone < len(times) and times[gone] + self._window_ms <= now_ms:
            self.used -= self._amounts[gone]
            gone += 1
        if gone:
            del times[:gone], self._amounts[:gone]
        if self.paced_from_ms is not None and self.paced_from_ms + 2 * self._window_ms <= now_ms:
            self.paced_from_ms = None

    def add(self, at_ms: int, amount: int) -> None:
        """Add an amount that is used at `at_ms`."""
        if amount <= 0:
            return
        place = bisect_left(self._times, at_ms)
        if place < len(self._times) and self._times[place] == at_ms:
            self._amounts[place] += amount
        else:
            self._times.insert(place, at_ms)
            self._amounts.insert(place, amount)
        self.used += amount
        if len(self._times) > MAX_ENTRIES:
            self._coarsen()

    def remove(self, at_ms: int, amount: int) -> None:
        """Take back an amount that was added with `at_ms`, as far as it is still in the log."""
        for time_ms in (at_ms, self._rounded(at_ms)):  # and not of what others have used since it left the log
            place = bisect_left(self._times, time_ms)
            if place == len(self._times) or self._times[place] != time_ms:
                continue
            taken = min(amount, self._amounts[place])
            amount -= taken
            self.used -= taken
            self._amounts[place] -= taken
            if not self._amounts[place]:
                del self._times[place], self._amounts[place]

    def correct(self, at_ms: int, amount: int, now_ms: int) -> None:
        """Count `amount` more from `now_ms` on, or, below 0, less of what was added with `at_ms`."""
        if amount > 0:
            self.add(now_ms, amount)
        else:
            self.remove(at_ms, -amount)

    def quota(self, limit: int, now_ms: int, spare: int = 0) -> Quota:
        """Return the state of `limit` at `now_ms`; `spare` is in the log, but not used yet."""
        self.expire(now_ms)
        reset_ms = self._times[-1] + self._window_ms - now_ms if self._times else 0
        return Quota(limit, max(0, limit - self.used + spare), reset_ms / 1000)

    def room_at(self, amount: int, limit: int, now_ms: int) -> int:
        """Return when, from `now_ms` on, another `amount` is within `limit`, if nothing else is added.

        An amount above the limit has room once the log is empty.
        """
        surplus = self.used + min(amount, limit) - limit
        for at_ms, entry in zip(self._times, self._amounts, strict=True):
            if surplus <= 0:
                break
            surplus -= entry
            now_ms = max(now_ms, at_ms + self._window_ms)
        return now_ms

    def paced_room_at(self, limit: int, now_ms: int) -> int:
        """Return when one more of `limit` has its turn, from `now_ms` on, and remember that the log is full.

        What many used at once comes back in pairs after a refusal, a little faster than the limit lets them, but at
        most within 1.5 seconds of a minute each. Else those who wait would use all of it at once again.
        """
        room_at_ms = self.room_at(1, limit, now_ms)
        if room_at_ms > now_ms:
            self.paced_from_ms = room_at_ms
        elif self.paced_from_ms is not None and self.paced_from_ms <= now_ms and self.used > 1:
            last_pair_at_ms = self._times[-1 if self._amounts[-1] > 1 else -2]
            return max(now_ms, last_pair_at_ms + min(self._window_ms * 3 // (2 * limit), self._window_ms // 40))
        return room_at_ms

    def _coarsen(self) -> None:
        merged: dict[int, int] = {}
        for at_ms, amount in zip(self._times, self._amounts, strict=True):
            rounded = self._rounded(at_ms)
            merged[rounded] = merged.get(rounded, 0) + amount
        self._times, self._amounts = list(merged), list(merged.values())

    def _rounded(self, at_ms: int) -> int:
        step = max(self._window_ms // _STEPS, 1)
        return -(-at_ms // step) * step
