"""A reader of a run's log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from service.agent.events import RunEvent
from service.core.concurrency import Event, Timeout, current_turn


class RunReader:
    """A reader's position in the log. It waits at most `quiet_seconds` for news.

    While it waits, `take` may handle the first event of a turn of the event loop in its stead, at half the cost of
    waking it. It returns whether it has, and must not wait. Events that are not `audible` it may take at any time; they
    leave the quiet time as it is.
    """

    def __init__(self, quiet_seconds: float | None = None, audible: tuple[type[Any], ...] = (object,)) -> None:
        self.position = 0
        self.take: Callable[[RunEvent], bool] | None = None
        self._news = Event()
        self._quiet = Timeout(quiet_seconds)
        self._audible = audible
        self._is_waiting = False
        self._has_news = True
        self._taken_in = -1

    def add(self, event: RunEvent) -> None:
        """Note the next event."""
        if self.take is None or not self._may_take(event) or not self.take(event):
            self._news.set()
            return
        self.position += 1
        if isinstance(event, self._audible):
            self._quiet.restart()

    def _may_take(self, event: RunEvent) -> bool:
        """True if the reader knows all events before; those that come together are left to it, as a batch."""
        if not self._is_waiting or self._news.is_set():
            return False
        if not isinstance(event, self._audible):
            return True
        turn, self._taken_in = self._taken_in, current_turn()
        return turn != self._taken_in

    def wake(self) -> None:
        """Look at the log again."""
        self._news.set()

    def interrupt(self) -> None:
        """End the wait as if it had been too long."""
        self._has_news = False
        self._news.set()

    def has_news(self) -> bool:
        """Wait for news that come from now on; return False if none came in time."""
        self._news.clear()
        self._has_news = self._is_waiting = True
        try:
            with self._quiet:
                self._news.wait()
        except TimeoutError:
            return False
        finally:
            self._is_waiting = False
        return self._has_news
