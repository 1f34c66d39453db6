"""Buffered input and output of an accepted socket, with time limits.

Every wait is bounded: a peer that is silent, slow, endless or does not read costs bounded time and memory. Works on
any socket that honours `settimeout`.
"""

from __future__ import annotations

import resource
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

from service.core.concurrency import Timeout, sleep, wait_for_input
from service.core.dataclass import record
from service.core.errors import GatewayError
from service.server.http1 import parser as wire

RECEIVE_BYTES = 64 * 1024
_TURN_BYTES = 256 * 1024
_PAUSE_SECONDS = 0.0001  # not 0: gevent runs fifty such callbacks before it polls sockets and timers
_TCP_CLOSE = 7  # netinet/tcp.h
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@record
class ConnectionLimits:
    """Limits on what a peer may cost.

    `head_seconds` runs from the first byte of a head to its last, `idle_seconds` limits the wait for the first byte.
    A body may pause for `body_stall_seconds` and take `body_seconds` from the application's first read. A peer that
    accepts no byte of a response for `send_stall_seconds` is dropped. Input that arrives after the response is read
    for at most `linger_seconds` and `linger_bytes`. At most `connections` are open; more wait to be accepted. Of each
    client address, `partial_heads` connections may have begun a head and not ended it; the oldest are closed.
    """

    head_seconds: float = 15
    idle_seconds: float = 75
    body_stall_seconds: float = 30
    body_seconds: float = 300
    send_stall_seconds: float = 60
    linger_seconds: float = 2
    linger_bytes: int = 32 * 1024 * 1024
    connections: int = 8192
    partial_heads: int = 512


class PeerGoneError(Exception):
    """The peer closed the connection or no longer responds."""


class Connection:
    """A socket, and in `buffer` the bytes received and not yet consumed.

    `probe` is the source of probes: bytes that do not alter the response, empty once sent, None if there are none.
    """

    def __init__(self, sock: socket.socket, limits: ConnectionLimits, clock: Callable[[], float]) -> None:
        self.socket = sock
        self.buffer = bytearray()
        self.limits = limits
        self.clock = clock
        self.is_kept = False  # open for another request
        self._idle_limit = Timeout(limits.idle_seconds)
        self._is_sending = False
        self._received_in_turn = 0
        self.probe: Callable[[], bytes | None] | None = None

    def wait_for_request(self) -> bool:
        """Wait for a request's first byte: False when the peer closes or is silent for `idle_seconds`."""
        try:
            if self.is_kept and not self.buffer:
                self.socket.settimeout(None)  # another limit would cost more
                with self._idle_limit:
                    wait_for_input(self.socket)
            return bool(self.buffer) or self.fill(self.limits.idle_seconds)
        except OSError:
            return False

    def read_head(self, on_partial: Callable[[], None] = lambda: None) -> bytes:
        """Read the next request's head, blank line included; calls `on_partial` before each wait for more of it.

        Raises `GatewayError` when it is too long, too slow or invalid, `PeerGoneError` when it ends early.
        """
        deadline = self.clock() + self.limits.head_seconds
        searched = 0
        while (end := wire.find_head_end(self.buffer, searched)) < 0:
            searched = len(self.buffer)
            on_partial()
            try:
                arrived = self.fill(deadline - self.clock())
            except TimeoutError:
                message = f"The request's headers did not arrive within {self.limits.head_seconds:g} seconds."
                raise GatewayError("request_timeout", message) from None
            except OSError as error:
                raise PeerGoneError from error
            if not arrived:
                raise PeerGoneError
        return self.take(end)

    def fill(self, timeout_seconds: float) -> bool:
        """Receive into `buffer`: False at the end of input. Raises `OSError` (`TimeoutError`)."""
        data = self._receive(RECEIVE_BYTES, timeout_seconds)
        self.buffer += data
        return bool(data)

    def read_some(self, size: int, timeout_seconds: float) -> bytes:
        """Return between one and `size` bytes, or `b""` at the end of input. Raises like `fill`."""
        if self.buffer:
            return self.take(size)
        return self._receive(min(size, RECEIVE_BYTES), timeout_seconds)

    def take(self, size: int) -> bytes:
        """Consume and return the first `size` bytes of `buffer`."""
        taken = bytes(self.buffer[:size])
        del self.buffer[:size]
        return taken

    def take_buffer(self) -> bytes:
        """Consume and return the whole `buffer`."""
        return self.take(len(self.buffer))

    def _receive(self, size: int, timeout_seconds: float) -> bytes:
        if timeout_seconds <= 0:
            raise TimeoutError
        self.socket.settimeout(timeout_seconds)
        data = self.socket.recv(size)
        self.yield_if_due(len(data))
        return data

    def yield_if_due(self, size: int) -> None:
        """Yield after every 256 KiB: recv does not while bytes are available."""
        self._received_in_turn += size
        if self._received_in_turn >= _TURN_BYTES:
            self._received_in_turn = 0
            sleep(_PAUSE_SECONDS)

    def send(self, data: bytes | bytearray) -> None:
        """Send all of `data`. Raises `PeerGoneError` if the peer left or accepts nothing for `send_stall_seconds`."""
        rest = memoryview(data)
        self._is_sending = True
        try:
            self.socket.settimeout(self.limits.send_stall_seconds)
            while rest:
                rest = rest[self.socket.send(rest) :]
        except TimeoutError as error:
            # Unread data must not stay in the kernel's memory.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            raise PeerGoneError from error
        except OSError as error:
            raise PeerGoneError from error
        finally:
            self._is_sending = False

    def offer(self, data: bytes) -> bytes:
        """Send what the socket takes without waiting, and return the rest, which has to be sent next.

        `send` finds out if the peer has left.
        """
        try:
            rest = data[self._raw.send(data, socket.MSG_DONTWAIT) :]
        except OSError:
            rest = data
        self._is_sending = bool(rest)  # no probe may come in between
        return rest

    def probe_peer(self) -> bool:
        """Send a probe, which a closed peer answers with a reset; False after a reset or without a probe to send."""
        if self._is_sending:
            return True  # the data being sent has the same effect
        data = None if self.probe is None or self._is_reset() else self.probe()
        try:
            return data is not None and (not data or self._raw.send(data, socket.MSG_DONTWAIT) > 0)
        except BlockingIOError:
            return True  # unread data has the same effect
        except OSError:
            return False

    def _is_reset(self) -> bool:
        # After the end of input, a read does not report a reset: the kernel's state of the connection does.
        with suppress(OSError, AttributeError):  # not TCP, or not Linux
            return self._raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE
        return False

    def fileno(self) -> int:
        """Return the socket's descriptor, -1 when it is closed."""
        return self.socket.fileno()

    def recv(self, size: int, flags: int, /) -> bytes:
        """Receive without waiting, bypassing `buffer`."""
        return self._raw.recv(size, flags)

    @property
    def _raw(self) -> socket.socket:
        raw: socket.socket = getattr(self.socket, "_sock", self.socket)  # gevent's wrapper waits; this does not
        return raw

    def has_input(self) -> bool:
        """Return whether unread input is available, without waiting."""
        if self.buffer:
            return True
        try:
            return bool(self._raw.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def end_if_idle(self) -> bool:
        """End the wait in `wait_for_request`, unless a request has begun to arrive; returns whether it did."""
        if self.has_input():
            return False
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        return True

    def abandon(self) -> None:
        """End the input and output at once. Raises `OSError`."""
        self.socket.shutdown(socket.SHUT_RDWR)

    def close(self, *, expects_more: bool) -> None:
        """Close so that the peer can read the last response even if it is still sending.

        Closing with unread input resets the connection, and the peer loses what it has not read. If there is such
        input, or the caller `expects_more`, it is read first, within the limits.
        """
        if expects_more or self.has_input():
            with suppress(OSError):
                self._linger()
        self.socket.close()

    def _linger(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)
        deadline = self.clock() + self.limits.linger_seconds
        left = self.limits.linger_bytes - len(self.buffer)
        while left > 0 and (data := self._receive(RECEIVE_BYTES, deadline - self.clock())):
            left -= len(data)


def raise_open_file_limit() -> int:
    """Raise the limit on open files to the system's hard limit; returns the limit in force."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems report an infinite limit and refuse to set it
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
