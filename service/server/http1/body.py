"""Request bodies: read from a connection by their framing, with time limits."""

from __future__ import annotations

import io
import math

from service.core.errors import GatewayError
from service.server.http1 import parser as wire
from service.server.http1.connection import RECEIVE_BYTES, Connection, PeerGoneError

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_CHUNK_COST_BYTES = 256  # parsing a chunk takes as long as receiving this many bytes
_MAX_TRAILER_BYTES = 8 * 1024
# Allowance for chunk framing beyond 16 bytes per chunk and twice the data, as in Go's net/http.
_MAX_EXCESS_BYTES = 16 * 1024


class Body(io.RawIOBase):
    """A request's body as `wsgi.input`: a readable stream that ends where the body ends.

    A read raises `GatewayError` (`request_timeout`, `malformed_request`) when the client stalls, leaves or breaks the
    framing, and so does every later read. A client that waits for `100 Continue` gets it at the first read, unless
    `owes_continue` was cleared because the response has begun.
    """

    def __init__(self, connection: Connection, framing: wire.Framing) -> None:
        self._connection = connection
        self._chunked = framing.chunked
        self._left = framing.content_length or 0  # of the body, or of the current chunk
        self._after_chunk = False
        self._excess = 0
        self.owes_continue = framing.expects_continue
        self._deadline = math.inf
        self._error: GatewayError | None = None
        self.finished = not self._chunked and self._left == 0

    @property
    def is_at_hand(self) -> bool:
        """True if the rest of the body has arrived, so that the next request can be found behind it."""
        if self._chunked or self._error is not None or self.owes_continue:
            return self.finished
        return self._left <= len(self._connection.buffer)

    def discard(self) -> None:
        """Drop a rest that `is_at_hand`."""
        if not self.finished:
            del self._connection.buffer[: self._left]
            self.finished = True

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read exactly `size` bytes, fewer only at the end of the body; without a size, the whole body."""
        left = -1 if size is None else size
        if not self.finished and self.is_at_hand and (left < 0 or left >= self._left):
            return self._take_rest()
        gathered = bytearray()  # a list would get twenty million items from a body in chunks of one byte
        while left and not self.finished and (piece := self._read_some(left if left > 0 else RECEIVE_BYTES)):
            gathered += piece
            left -= len(piece) if left > 0 else 0
        return bytes(gathered)

    def _take_rest(self) -> bytes:
        rest = self._connection.take(self._left)
        self._left = 0
        self.finished = True
        return rest

    def _read_some(self, size: int) -> bytes:
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
        if self.owes_continue:
            self.owes_continue = False
            if not self._connection.buffer:
                self._connection.send(CONTINUE)
        if self._chunked and self._left == 0:
            self._left = self._next_chunk()
            if self._left == 0:
                self.finished = True
                return b""
        patience = 0.0 if self._connection.buffer else self._patience_seconds()  # only a read from the socket waits
        data = self._connection.read_some(min(size, self._left), patience)
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
        self._connection.yield_if_due(_CHUNK_COST_BYTES)
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
