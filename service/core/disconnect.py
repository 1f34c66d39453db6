"""Detection of a peer that hangs up."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any, Literal, Protocol

import gevent

_FIRST_POLL_SECONDS, _LONGEST_POLL_SECONDS = 0.01, 1.0
_READABLE = 1  # gevent's READ flag for an io watcher


class ProbedConnection(Protocol):
    """A connection that can find out whether a peer that sends nothing more is still reading."""

    def fileno(self) -> int:
        """Return the descriptor of the socket."""

    def recv(self, size: int, flags: int, /) -> bytes:
        """Receive without waiting."""

    def probe_peer(self) -> bool:
        """Make a closed peer answer with a reset, without altering the response; False if it is gone or unknown."""


class watch_disconnect:  # noqa: N801 - reads like `deadline` and `suppress`
    """Call `on_disconnect` once if the peer closes `connection` while the block runs.

    The end of a plain socket's input is a hang-up. A `ProbedConnection` is probed first, because a peer may close only
    its own direction (RFC 9112 9.6). Bytes that the peer sends meanwhile (a pipelined request) stay unread and end the
    watch. `on_disconnect` runs in the event loop and must not wait.
    """

    def __init__(self, connection: socket.socket | ProbedConnection | None, on_disconnect: Callable[[], None]) -> None:
        self._connection = connection
        self._on_disconnect = on_disconnect
        self._watcher: Any = None
        self._timer: Any = None
        self._poll_seconds = _FIRST_POLL_SECONDS

    def __enter__(self) -> None:
        descriptor = -1 if self._connection is None else self._connection.fileno()
        if descriptor >= 0:
            self._watcher = gevent.get_hub().loop.io(descriptor, _READABLE)
            self._watcher.start(self._on_readable)

    def _on_readable(self) -> None:
        self._watcher.stop()
        self._check()

    def _check(self) -> None:
        state = _input_state(self._connection)
        probe = getattr(self._connection, "probe_peer", None)
        if state == "reset" or (state == "end" and not (probe and probe())):
            self._on_disconnect()
        elif state == "end":
            # The end of input stays readable, so only a timer can wait for the reset.
            if self._timer is not None:
                self._timer.close()
            self._timer = gevent.get_hub().loop.timer(self._poll_seconds)
            self._timer.start(self._check)
            self._poll_seconds = min(2 * self._poll_seconds, _LONGEST_POLL_SECONDS)

    def __exit__(self, *exc_info: object) -> None:
        for watcher in (self._watcher, self._timer):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        self._watcher = self._timer = None


def _input_state(connection: Any) -> Literal["open", "end", "reset"]:
    raw = getattr(connection, "_sock", connection)  # gevent's wrapper blocks; the socket inside does not
    try:
        return "open" if raw.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) else "end"
    except OSError as error:
        return "open" if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR) else "reset"
