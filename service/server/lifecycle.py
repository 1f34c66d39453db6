"""Serving until told to stop: signals in, a drained server out."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable

import gevent

from service.core.concurrency import Event
from service.core.dataclass import record
from service.server.http1.server import Server

#: The garbage collector's thresholds: objects made and not freed, then collections of the next younger generation.
#: A request makes hundreds that reference counting frees; a collection costs the more, the more requests are under way.
_COLLECT_AFTER = (10_000, 20, 20)

#: How long requests that run may go on once the process has been asked to stop, unless it is told otherwise.
GRACE_SECONDS = 30.0

#: How long requests have to tell their end once what they wait for is ended.
_LAST_WORDS_SECONDS = 1.0


#: Signals within this time of the first are one request: terminals and supervisors send them in bursts.
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


@record
class Stop:
    """How a process stops: requests that run may go on for `grace_seconds`.

    `on_asked` is called first, `on_over` when the time is up or somebody insists: it ends what requests wait for. Both
    must be quick.
    """

    grace_seconds: float = GRACE_SECONDS
    on_asked: Callable[[], None] = lambda: None
    on_over: Callable[[], object] = lambda: None


def run_until_stopped(server: Server, stop: Stop) -> None:
    """Serve until SIGTERM or SIGINT, let running requests finish, then return.

    After the grace, or at a signal more than a second after the first one, what still runs is closed. From then on both
    signals are ignored: the rest of a burst must not cut the process's last steps.
    """
    signals = StopSignals(server.clock)
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, signals.on_signal)
    _serve(server, signals, stop)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def run_until_dismissed(
    server: Server, stop: Stop, *, on_started: Callable[[], None], is_wanted: Callable[[], bool]
) -> None:
    """The same for one process of several, whose arbiter alone hears the terminal: SIGTERM asks, SIGQUIT insists.

    `is_wanted` is asked once both signals are heard: whether none came before.
    """
    signals = StopSignals(server.clock)
    gevent.signal_handler(signal.SIGTERM, signals.asked.set)
    gevent.signal_handler(signal.SIGQUIT, signals.insist)
    if is_wanted():
        server.start()
        on_started()
        _serve(server, signals, stop)
    for number in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)


def _serve(server: Server, signals: StopSignals, stop: Stop) -> None:
    if not server.started:
        server.start()
    _spare_what_stays()
    signals.asked.wait()
    stop.on_asked()
    server.close()
    finished = gevent.spawn(server.pool.join)
    gevent.wait([finished, signals.insisted], timeout=stop.grace_seconds, count=1)
    finished.kill()
    stop.on_over()
    server.pool.join(timeout=_LAST_WORDS_SECONDS)
    server.pool.kill(block=True, timeout=1)


def _spare_what_stays() -> None:
    """Keep the garbage collector from what was made at the start: looking through it again stalls every stream."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
