"""Serving until told to stop: signals in, a drained server out."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable

import gevent
from gevent.event import Event

from service.edge.server import Server
from service.edge.stopping import StopSignals

#: The garbage collector's thresholds: objects made and not freed, then collections of the next younger generation.
#: A request makes hundreds that reference counting frees; a collection costs the more, the more requests are under way.
_COLLECT_AFTER = (10_000, 20, 20)

#: How long requests that run may go on once the process has been asked to stop.
GRACE_SECONDS = 30.0


def run_until_stopped(
    server: Server, *, grace_seconds: float = GRACE_SECONDS, on_stopping: Callable[[], None] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, let running requests finish, then return.

    `on_stopping` is called first and must be quick. After `grace_seconds`, or at a SIGINT more than a second after the
    first signal, what still runs is closed. From then on both signals are ignored: the rest of a burst must not cut the
    process's last steps.
    """
    stop = StopSignals(lambda: server.pool.kill(block=False), server.clock)
    gevent.signal_handler(signal.SIGTERM, stop.on_sigterm)
    gevent.signal_handler(signal.SIGINT, stop.on_sigint)
    _serve(server, stop.asked, grace_seconds, on_stopping)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def run_until_dismissed(
    server: Server, *, on_started: Callable[[], None], on_stopping: Callable[[], None], is_wanted: Callable[[], bool]
) -> None:
    """The same for one process of several, whose arbiter alone hears the terminal: SIGTERM asks, SIGQUIT insists.

    `is_wanted` is asked once both signals are heard: whether none came before.
    """
    dismissed = Event()
    gevent.signal_handler(signal.SIGTERM, dismissed.set)
    gevent.signal_handler(signal.SIGQUIT, _close_at_once, server, dismissed)
    if is_wanted():
        server.start()
        on_started()
        _serve(server, dismissed, GRACE_SECONDS, on_stopping)
    for number in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)


def _close_at_once(server: Server, dismissed: Event) -> None:
    dismissed.set()
    server.pool.kill(block=False)


def _serve(server: Server, asked: Event, grace_seconds: float, on_stopping: Callable[[], None] | None) -> None:
    if not server.started:
        server.start()
    _spare_what_stays()
    asked.wait()
    if on_stopping is not None:
        on_stopping()
    server.close()
    server.pool.join(timeout=grace_seconds)
    server.pool.kill(block=True, timeout=1)


def _spare_what_stays() -> None:
    """Keep the garbage collector from what was made at the start: looking through it again stalls every stream."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
