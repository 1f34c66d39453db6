"""What SIGTERM and SIGINT mean to a serving process: the first asks it to stop, a later one insists.

Test runners, terminals and supervisors send signals in bursts; a burst is one request.
"""

from __future__ import annotations

from collections.abc import Callable

from service.core.concurrency import Event

BURST_SECONDS = 1.0


class StopSignals:
    """Counts the signals: `asked` is set by the first, `insisted` by one that comes more than a second after it.

    `clock` gives seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.asked = Event()
        self.insisted = Event()
        self._clock = clock
        self._asked_at = 0.0

    def on_signal(self) -> None:
        """Ask to stop, or insist on it."""
        if not self.asked.is_set():
            self._asked_at = self._clock()
            self.asked.set()
        elif self._clock() - self._asked_at > BURST_SECONDS:
            self.insist()

    def insist(self) -> None:
        """Ask to stop at once."""
        self.asked.set()
        self.insisted.set()
