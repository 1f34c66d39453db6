"""Serving until a signal asks to stop, and draining the server."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable

import gevent
import gevent.event

from service.core.concurrency import Event
from service.core.dataclass import record
from service.server.http1.server import Server

#: The garbage collector's thresholds: allocations minus frees, then collections of the next younger generation. A
#: request creates hundreds of objects that reference counting frees; a collection gets slower with concurrent requests.
_COLLECT_AFTER = (10_000, 20, 20)

#: Default time that running requests get to finish after a stop signal.
GRACE_SECONDS = 30.0

#: Time for requests to send their final error after their runs have been aborted.
_FINAL_RESPONSE_SECONDS = 1.0


#: Signals within this time of the first count as one: terminals and supervisors send bursts.
BURST_SECONDS = 1.0


class StopSignals:
    """Stop signals: the first sets `asked`, one that arrives more than a second later sets `forced`.

    `clock` returns seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.asked = Event()
        self.forced = gevent.event.Event()  # for `gevent.wait`
        self._clock = clock
        self._asked_at = 0.0

    def on_signal(self) -> None:
        """Ask to stop, or force it."""
        if not self.asked.is_set():
            self._asked_at = self._clock()
            self.asked.set()
        elif self._clock() - self._asked_at > BURST_SECONDS:
            self.force()

    def force(self) -> None:
        """Stop at once."""
        self.asked.set()
        self.forced.set()


@record
class Stop:
    """Shutdown settings: running requests, and what `join` waits for, get `grace_seconds` to finish.

    `on_asked` is called first; `on_over` is called when the time is up or the stop is forced, to abort the runs that
    requests wait for. Both must return quickly.
    """

    grace_seconds: float = GRACE_SECONDS
    on_asked: Callable[[], None] = lambda: None
    on_over: Callable[[], object] = lambda: None
    join: Callable[[], None] = lambda: None


def run_until_stopped(server: Server, stop: Stop) -> None:
    """Serve until SIGTERM or SIGINT, let running requests finish, then return.

    After the grace period, or at a signal more than a second after the first, remaining requests are closed. From then
    on both signals are ignored, so that the rest of a burst cannot interrupt the final steps.
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
    """Serve as one of several workers, whose signals come from the arbiter: SIGTERM asks to stop, SIGQUIT forces it.

    `is_wanted` is called once both handlers are installed, and returns whether no signal arrived before.
    """
    signals = StopSignals(server.clock)
    gevent.signal_handler(signal.SIGTERM, signals.asked.set)
    gevent.signal_handler(signal.SIGQUIT, signals.force)
    if is_wanted():
        server.start()
        on_started()
        _serve(server, signals, stop)
    for number in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)


def _serve(server: Server, signals: StopSignals, stop: Stop) -> None:
    if not server.started:
        server.start()
    _freeze_startup_objects()
    signals.asked.wait()
    stop.on_asked()
    server.close()
    finished = gevent.spawn(_join, server, stop)
    gevent.wait([finished, signals.forced], timeout=stop.grace_seconds, count=1)
    finished.kill()
    stop.on_over()
    server.pool.join(timeout=_FINAL_RESPONSE_SECONDS)
    server.pool.kill(block=True, timeout=1)


def _join(server: Server, stop: Stop) -> None:
    server.pool.join()
    stop.join()


def _freeze_startup_objects() -> None:
    """Exclude the objects of the start from garbage collection: traversing them stalls every stream."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
