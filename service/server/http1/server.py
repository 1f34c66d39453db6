"""A strict and bounded HTTP/1.1 server for WSGI applications, built on gevent's."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from gevent.pool import Pool
from gevent.pywsgi import WSGIServer

from service.server.http1.connection import Connection, ConnectionLimits
from service.server.http1.partial_heads import PartialHeads
from service.server.http1.request_handler import RequestHandler

_log = logging.getLogger("openclaw.server")

_ACCEPT_PAUSE_SECONDS = 0.2
_EVICTED_AT_ONCE = 32


class Server(WSGIServer):  # type: ignore[misc]  # gevent has no types
    """Accepts a bounded number of connections and runs a `RequestHandler` on each.

    `listener` is an address `(host, port)` or a bound socket. `close()` stops accepting and ends connections that wait
    for a request; running requests finish and their responses say `Connection: close`. Logs go to the loggers
    `openclaw.server` and `openclaw.access`; `log` is ignored. gunicorn's instances use the class's `limits`.
    """

    handler_class = RequestHandler
    backlog = 1024
    limits = ConnectionLimits()

    def __init__(
        self,
        listener: Any,
        application: Callable[..., Iterable[bytes]] | None = None,
        *,
        limits: ConnectionLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
        spawn: Any = "default",
        log: Any = None,  # noqa: ARG002 - gunicorn passes it
        handler_class: type[RequestHandler] | None = None,
        environ: dict[str, Any] | None = None,
    ) -> None:
        self.limits = limits or self.limits
        self.clock = clock
        self.draining = False
        self._idle: dict[Connection, None] = {}  # ordered by the start of the wait
        self._partial_heads = PartialHeads(self.limits.partial_heads)
        pool = Pool(self.limits.connections) if spawn == "default" else spawn
        super().__init__(
            listener, application, spawn=pool, log=None, error_log=_log, handler_class=handler_class, environ=environ
        )

    def update_environ(self) -> None:
        """Set the server's name and port without a DNS lookup."""
        if isinstance(self.address, tuple):
            self.environ.setdefault("SERVER_NAME", str(self.address[0]))
        super().update_environ()

    def do_read(self) -> tuple[socket.socket, Any] | None:
        """Accept one connection; without free descriptors, pause accepting for a moment."""
        try:
            accepted: tuple[socket.socket, Any] | None = super().do_read()
        except OSError as error:
            if self.is_fatal_error(error):
                raise
            _log.warning("connection could not be accepted: %s", error.strerror)
            self.stop_accepting()
            self._make_room(_EVICTED_AT_ONCE)
            self._timer = self.loop.timer(_ACCEPT_PAUSE_SECONDS)
            self._timer.start(self._start_accepting_if_started)
            return None
        if accepted is not None and accepted[0].family != socket.AF_UNIX:
            with suppress(OSError):
                accepted[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.pool is not None and self.pool.free_count() <= 1:  # this one takes the last place
            self._make_room(1)
        return accepted

    def _make_room(self, count: int) -> None:
        """Close idle connections, then those with a partial head, each oldest first, to admit others."""
        ended = sum(connection.end_if_idle() for connection in list(self._idle)[:count])
        self._partial_heads.evict_oldest(count - ended)

    def read_head(self, connection: Connection, address: str) -> bytes:
        """Read a request's head; the connection may be evicted while the head is incomplete."""
        registered = False

        def on_partial() -> None:
            nonlocal registered
            if not registered:
                registered = True
                if self.pool is not None and not self.pool.free_count():
                    self._partial_heads.evict_oldest(1)
                self._partial_heads.add(connection, address)

        try:
            return connection.read_head(on_partial)
        finally:
            if registered:
                self._partial_heads.remove(connection)

    def wait_for_request(self, connection: Connection) -> bool:
        """Wait until a request begins to arrive: False when none will, or when the server is closed."""
        if self.draining:
            return connection.has_input()
        self._idle[connection] = None
        if connection.is_kept and self.pool is not None and not self.pool.free_count():
            self._make_room(1)  # others may wait to be accepted
        try:
            return connection.wait_for_request()
        finally:
            self._idle.pop(connection, None)

    def close(self) -> None:
        """Stop accepting, close idle connections, let running requests finish. Idempotent."""
        self.draining = True
        super().close()
        for connection in self._idle:
            connection.end_if_idle()
