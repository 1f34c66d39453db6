"""What SIGTERM and SIGINT mean to a serving process: the first asks it to stop, a later SIGINT insists.

Test runners and terminals send SIGINT in bursts; a burst is one request.
"""

from __future__ import annotations

from collections.abc import Callable

from service.concurrency import Event

BURST_SECONDS = 1.0


class StopSignals:
    """Counts the signals: `asked` is set by the first, `insist` is called by a SIGINT more than a second after it."""

    def __init__(self, insist: Callable[[], None], clock: Callable[[], float]) -> None:
        self.asked = Event()
        self._insist = insist
        self._clock = clock
        self._asked_at = 0.0

    def on_sigterm(self) -> None:
        """Ask to stop; again is a no-op."""
        if not self.asked.is_set():
            self._asked_at = self._clock()
            self.asked.set()

    def on_sigint(self) -> None:
        """Ask to stop, or insist on it."""
        if self.asked.is_set() and self._clock() - self._asked_at > BURST_SECONDS:
            self._insist()
        self.on_sigterm()
