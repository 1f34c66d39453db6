"""Serving until told to stop: signals in, a drained server out."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable

import gevent

from service.server import Server
from service.stopping import StopSignals

#: The garbage collector's thresholds: objects made and not freed, then collections of the next younger generation.
#: A request makes hundreds that reference counting frees; a collection costs the more, the more requests are under way.
_COLLECT_AFTER = (10_000, 20, 20)


def run_until_stopped(
    server: Server, *, grace_seconds: float = 30, on_stopping: Callable[[], None] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, let running requests finish, then return.

    `on_stopping` is called first and must be quick. After `grace_seconds`, or at a SIGINT more than a second after the
    first signal, what still runs is closed. From then on both signals are ignored: the rest of a burst must not cut the
    process's last steps.
    """
    stop = StopSignals(lambda: server.pool.kill(block=False), server.clock)
    gevent.signal_handler(signal.SIGTERM, stop.on_sigterm)
    gevent.signal_handler(signal.SIGINT, stop.on_sigint)
    if not server.started:
        server.start()
    _spare_what_stays()
    stop.asked.wait()
    if on_stopping is not None:
        on_stopping()
    server.close()
    server.pool.join(timeout=grace_seconds)
    server.pool.kill(block=True, timeout=1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _spare_what_stays() -> None:
    """Keep the garbage collector from what was made at the start: looking through it again stalls every stream."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
