"""Buffered input, output and request bodies of an accepted socket, with time limits.

Every wait is bounded: a peer that is silent, slow, endless or does not read costs bounded time and memory. Works on
any socket that honours `settimeout`.
"""

from __future__ import annotations

import io
import math
import resource
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

from service.core.concurrency import sleep
from service.core.dataclass import record
from service.core.errors import GatewayError
from service.server.http1 import parser as wire

_RECEIVE_BYTES = 64 * 1024
_TURN_BYTES = 256 * 1024
_CHUNK_COST_BYTES = 256  # parsing a chunk takes as long as receiving this many bytes
_PAUSE_SECONDS = 0.0001  # not 0: gevent runs fifty such callbacks before it polls sockets and timers
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_MAX_TRAILER_BYTES = 8 * 1024
# Allowance for chunk framing beyond 16 bytes per chunk and twice the data, as in Go's net/http.
_MAX_EXCESS_BYTES = 16 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@record
class Limits:
    """Limits on what a peer may cost.

    `head_seconds` runs from the first byte of a head to its last, `idle_seconds` limits the wait for the first byte.
    A body may pause for `body_stall_seconds` and take `body_seconds` from the application's first read. A peer that
    accepts no byte of a response for `send_stall_seconds` is dropped. Input that arrives after the response is read
    for at most `linger_seconds` and `linger_bytes`. At most `connections` are open; more wait to be accepted.
    """

    head_seconds: float = 15
    idle_seconds: float = 75
    body_stall_seconds: float = 30
    body_seconds: float = 300
    send_stall_seconds: float = 60
    linger_seconds: float = 2
    linger_bytes: int = 32 * 1024 * 1024
    connections: int = 8192


class PeerGoneError(Exception):
    """The peer closed the connection or no longer responds."""


class Connection:
    """A socket, and in `buffer` the bytes received and not yet consumed."""

    def __init__(self, sock: socket.socket, limits: Limits, clock: Callable[[], float]) -> None:
        self.socket = sock
        self.buffer = bytearray()
        self.limits = limits
        self.clock = clock
        self._received_in_turn = 0

    def wait_for_request(self) -> bool:
        """Wait for a request's first byte: False when the peer closes or is silent for `idle_seconds`."""
        try:
            return bool(self.buffer) or self.fill(self.limits.idle_seconds)
        except OSError:
            return False

    def read_head(self) -> bytes:
        """Read the next request's head, blank line included.

        Raises `GatewayError` when it is too long, too slow or invalid, `PeerGoneError` when it ends early.
        """
        deadline = self.clock() + self.limits.head_seconds
        searched = 0
        while (end := wire.find_head_end(self.buffer, searched)) < 0:
            searched = len(self.buffer)
            try:
                arrived = self.fill(deadline - self.clock())
            except TimeoutError:
                message = f"The request's headers did not arrive within {self.limits.head_seconds:g} seconds."
                raise GatewayError("request_timeout", message) from None
            except OSError as error:
                raise PeerGoneError from error
            if not arrived:
                raise PeerGoneError
        return self._take(end)

    def fill(self, timeout_seconds: float) -> bool:
        """Receive into `buffer`: False at the end of input. Raises `OSError` (`TimeoutError`)."""
        data = self._receive(_RECEIVE_BYTES, timeout_seconds)
        self.buffer += data
        return bool(data)

    def read_some(self, size: int, timeout_seconds: float) -> bytes:
        """Return between one and `size` bytes, or `b""` at the end of input. Raises like `fill`."""
        if self.buffer:
            return self._take(size)
        return self._receive(min(size, _RECEIVE_BYTES), timeout_seconds)

    def take_buffer(self) -> bytes:
        """Consume and return the whole `buffer`."""
        return self._take(len(self.buffer))

    def _take(self, size: int) -> bytes:
        with memoryview(self.buffer) as view:
            taken = bytes(view[:size])
        del self.buffer[:size]
        return taken

    def _receive(self, size: int, timeout_seconds: float) -> bytes:
        if timeout_seconds <= 0:
            raise TimeoutError
        self.socket.settimeout(timeout_seconds)
        data = self.socket.recv(size)
        self.count_turn(len(data))
        return data

    def count_turn(self, size: int) -> None:
        """Yield after every 256 KiB: recv does not while bytes are available."""
        self._received_in_turn += size
        if self._received_in_turn >= _TURN_BYTES:
            self._received_in_turn = 0
            sleep(_PAUSE_SECONDS)

    def send(self, data: bytes | bytearray) -> None:
        """Send all of `data`. Raises `PeerGoneError` if the peer left or accepts nothing for `send_stall_seconds`."""
        rest = memoryview(data)
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

    def has_input(self) -> bool:
        """Return whether unread input is available, without waiting."""
        if self.buffer:
            return True
        raw = getattr(self.socket, "_sock", self.socket)  # gevent's wrapper waits; the socket inside does not
        try:
            return bool(raw.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def end_if_idle(self) -> None:
        """End the wait in `wait_for_request`, unless a request has begun to arrive."""
        if not self.has_input():
            with suppress(OSError):
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
        while left > 0 and (data := self._receive(_RECEIVE_BYTES, deadline - self.clock())):
            left -= len(data)


class Body(io.RawIOBase):
    """A request's body as `wsgi.input`: a readable stream that ends where the body ends.

    A read raises `GatewayError` (`request_timeout`, `malformed_request`) when the client stalls, leaves or breaks the
    framing, and so does every later read. A client that waits for `100 Continue` gets it at the first read.
    """

    def __init__(self, connection: Connection, framing: wire.Framing) -> None:
        self._connection = connection
        self._chunked = framing.chunked
        self._left = framing.content_length or 0  # of the body, or of the current chunk
        self._after_chunk = False
        self._excess = 0
        self._owes_continue = framing.expects_continue
        self._deadline = math.inf
        self._error: GatewayError | None = None
        self.finished = not self._chunked and self._left == 0

    @property
    def is_at_hand(self) -> bool:
        """True if the rest of the body has arrived, so that the next request can be found behind it."""
        if self._chunked or self._error is not None or self._owes_continue:
            return self.finished
        return self._left <= len(self._connection.buffer)

    def discard(self) -> None:
        """Drop a rest that `is_at_hand`."""
        if not self.finished:
            del self._connection.buffer[: self._left]
            self.finished = True

    def forgo_continue(self) -> None:
        """Suppress `100 Continue`, because the response has begun."""
        self._owes_continue = False

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read exactly `size` bytes, fewer only at the end of the body; without a size, the whole body."""
        left = -1 if size is None else size
        gathered = bytearray()  # a list would get twenty million items from a body in chunks of one byte
        while left and (piece := self._read_some(left if left > 0 else _RECEIVE_BYTES)):
            gathered += piece
            left -= len(piece) if left > 0 else 0
        return bytes(gathered)

    def _read_some(self, size: int) -> bytes:
        if self.finished or size == 0:
            return b""
        if self._error is not None:
            raise self._error.copy()
        try:
            return self._advance(size)
        except TimeoutError:
            self._error = self._too_slow()
        except (OSError, EOFError, PeerGoneError):
            self._error = wire.malformed("The connection ended before the request's body was complete.")
        except GatewayError as error:
            self._error = error.copy()
        raise self._error.copy()

    def _advance(self, size: int) -> bytes:
        if self._deadline == math.inf:
            self._deadline = self._connection.clock() + self._connection.limits.body_seconds
        if self._owes_continue:
            self._owes_continue = False
            if not self._connection.buffer:
                self._connection.send(_CONTINUE)
        if self._chunked and self._left == 0:
            self._left = self._next_chunk()
            if self._left == 0:
                self.finished = True
                return b""
        data = self._connection.read_some(min(size, self._left), self._patience_seconds())
        if not data:
            raise EOFError
        self._left -= len(data)
        self.finished = self._left == 0 and not self._chunked
        return data

    def _patience_seconds(self) -> float:
        return min(self._connection.limits.body_stall_seconds, self._deadline - self._connection.clock())

    def _too_slow(self) -> GatewayError:
        limits = self._connection.limits
        if self._patience_seconds() <= 0:
            message = f"The request's body took more than {limits.body_seconds:g} seconds."
        else:
            message = f"No byte of the request's body arrived for {limits.body_stall_seconds:g} seconds."
        return GatewayError("request_timeout", message)

    def _next_chunk(self) -> int:
        if self._after_chunk:
            self._read_line(0)
        self._after_chunk = True
        self._connection.count_turn(_CHUNK_COST_BYTES)
        line = self._read_line(wire.MAX_CHUNK_LINE_BYTES)
        size = wire.parse_chunk_size(line)
        self._excess = max(0, self._excess + len(line) + 2 - 16 - 2 * size)
        if self._excess > _MAX_EXCESS_BYTES:
            raise wire.malformed("The chunked body is broken: it is mostly framing and hardly any data.")
        if size == 0:
            self._skip_trailers()
        return size

    def _skip_trailers(self) -> None:
        left = _MAX_TRAILER_BYTES
        while line := self._read_line(left):
            wire.check_trailer(line)
            left = max(0, left - len(line))

    def _read_line(self, limit_bytes: int) -> bytes:
        buffer = self._connection.buffer
        while (end := buffer.find(b"\n", 0, limit_bytes + 2)) < 0:
            if len(buffer) >= limit_bytes + 2:
                raise wire.malformed("The chunked body is broken: a chunk or a line exceeds its limit.")
            if not self._connection.fill(self._patience_seconds()):
                raise EOFError
        if end == 0 or buffer[end - 1] != ord("\r"):
            raise wire.malformed("The chunked body is broken: its lines must end in CR LF.")
        line = bytes(buffer[: end - 1])
        del buffer[: end + 1]
        return line


def raise_open_file_limit() -> int:
    """Raise the limit on open files to the system's hard limit; returns the limit in force."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems report an infinite limit and refuse to set it
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
