"""One WebSocket on a socket that the server has handed over: whole messages in, messages out.

Sending never waits. Unsent bytes are queued up to a limit, beyond which the connection is dropped: a slow reader must
not delay others. Received messages and unsent bytes count in the process's budget of bytes in flight. Framing is the
sans-IO part of `websockets`; compression is not offered.
"""

from __future__ import annotations

import logging
import socket
import struct
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from service.core.byte_budget import ByteBudget, Hold
from service.core.concurrency import Event, sleep, spawn
from service.core.errors import GatewayError

#: Time without progress in sending after which the peer is considered gone.
STALL_SECONDS = 60.0

#: Time limit for the peer's part of the closing handshake.
CLOSE_SECONDS = 5.0

MAX_BUFFERED_BYTES = 50 * 1024 * 1024

_RECEIVE_BYTES = 64 * 1024
_SEND_BYTES = 256 * 1024
_TURN_BYTES = 256 * 1024
_UNCOUNTED_BYTES = 128 * 1024  # of a message; most are smaller
_COUNTED_BYTES = 1024 * 1024
_PAUSE_SECONDS = 0.0001  # not 0: gevent polls sockets and timers in between
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_VERSION_KEY, _VERSION = "HTTP_SEC_WEBSOCKET_VERSION", "13"
_MAX_REASON_BYTES = 120  # a close frame has room for 123

_log = logging.getLogger("openclaw.websocket")


class _QuietLogger(logging.LoggerAdapter[logging.Logger]):
    """Drops the library's messages about opened and closed connections, which the access log has."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the standard library's name
        return level >= logging.WARNING and super().isEnabledFor(level)


_frames_log = _QuietLogger(logging.getLogger("openclaw.websocket.frames"), {})


def accept_upgrade(environ: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Validate an upgrade request and return the headers of its 101 response.

    Raises `GatewayError` (`malformed_request`).
    """
    protocol = ServerProtocol(logger=_frames_log)
    fields = [(key[5:].replace("_", "-"), str(value)) for key, value in environ.items() if key.startswith("HTTP_")]
    wanted = [(name, value) for name, value in fields if name.startswith(("SEC-WEBSOCKET-", "CONNECTION", "UPGRADE"))]
    kept = [pair for pair in wanted if pair[0] not in ("SEC-WEBSOCKET-EXTENSIONS", "SEC-WEBSOCKET-PROTOCOL")]
    response = protocol.accept(Request(environ.get("PATH_INFO", "/"), Headers(kept)))
    if response.status_code != 101:  # noqa: PLR2004 - "Switching Protocols"
        text = f"The WebSocket upgrade is invalid: {protocol.handshake_exc}."
        headers = None if environ.get(_VERSION_KEY) == _VERSION else {"Sec-WebSocket-Version": _VERSION}
        raise GatewayError("malformed_request", text, headers=headers)
    return [(name, value) for name, value in response.headers.raw_items() if name.lower() != "date"]


class WebSocket:
    """An upgraded connection.

    One greenlet receives; any may send or close. What waits to be sent and what arrives count in `budget`.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        early: bytes = b"",
        stall_seconds: float = STALL_SECONDS,
        max_buffered_bytes: int = MAX_BUFFERED_BYTES,
        budget: ByteBudget | None = None,
    ) -> None:
        self._socket = sock
        self._protocol = ServerProtocol(state=State.OPEN, logger=_frames_log, max_size=None)
        self._early = early
        self._max_buffered_bytes = max_buffered_bytes
        self._budget = budget or ByteBudget()
        self._backlog = self._budget.hold(lambda: self.drop("it reads too slowly, and others need the room"))
        self._arriving = self._new_hold()
        self._queue: deque[bytes] = deque()
        self._writing = False
        self._written = Event()
        self._written.set()
        self._message: bytearray | None = None  # of the fragments received so far
        self._binary = False
        self._pending_bytes = 0  # received since the last message
        self._inbox: deque[tuple[bytes | None, Hold]] = deque()
        self._discards = False
        self._received_in_turn = 0
        self.buffered_bytes = 0
        self.dropped: str | None = None
        sock.settimeout(stall_seconds)
        with suppress(OSError):  # detects a vanished peer even if there is little to send
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(stall_seconds * 1000))

    def limit_backlog(self, max_bytes: int) -> None:
        """Drop the connection when more than `max_bytes` are unsent."""
        self._max_buffered_bytes = max_bytes

    def limit_messages(self, max_bytes: int) -> None:
        """Close the connection with 1009 on later messages of more than `max_bytes`."""
        self._protocol.max_message_size = max_bytes

    @property
    def is_open(self) -> bool:
        """True if messages can still be sent."""
        return self.dropped is None and self._protocol.state is State.OPEN

    def _new_hold(self) -> Hold:
        return self._budget.hold(lambda: self.drop("its message arrives too slowly, and others need the room"))

    def messages(self) -> Iterator[tuple[bytes | None, Hold]]:
        """Yield each message as it arrives, `None` for one that is not text, until the connection ends.

        The receiver releases the message's hold. Raises `GatewayError` (`overloaded`) if a message finds no room.
        """
        while True:
            while self._inbox:
                yield self._inbox.popleft()
            if not self._receive():
                return

    def _receive(self) -> bool:
        """Receive and parse the next bytes; return False when no more messages can follow."""
        if self.dropped is not None or self._protocol.state is State.CLOSED or self._protocol.eof_sent:
            return False
        data, self._early = self._early or self._recv(), b""
        if data and self._discards:
            return True
        if data:
            self._make_room(len(data))
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        for frame in self._protocol.events_received():
            self._take(frame)
        self._flush()
        return bool(data) or bool(self._inbox)

    def _make_room(self, size: int) -> None:
        """Count the beginning of a large message in the budget, before the rest is received."""
        self._pending_bytes += size
        hold = self._arriving
        hold.arrived_bytes = self._pending_bytes
        if self._pending_bytes > hold.size + _UNCOUNTED_BYTES:
            if not hold.is_arriving:
                hold.begin_arrival()
            hold.take(_COUNTED_BYTES)

    def _recv(self) -> bytes:
        while True:
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except TimeoutError:
                continue  # a client may be silent for any time
            except OSError:
                return b""
            self._received_in_turn += len(data)
            if self._received_in_turn >= _TURN_BYTES:
                self._received_in_turn = 0
                sleep(_PAUSE_SECONDS)
            return data

    def _take(self, frame: Any) -> None:
        if not isinstance(frame, Frame) or frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        if frame.opcode is not Opcode.CONT:
            self._binary = frame.opcode is Opcode.BINARY
            if frame.fin:
                self._deliver(frame.data)
                return
            self._message = bytearray()
        if self._message is not None:
            self._message += frame.data
            if frame.fin:
                self._deliver(self._message)
                self._message = None

    def _deliver(self, data: bytes | bytearray | memoryview) -> None:
        hold, self._arriving = self._arriving, self._new_hold()
        hold.is_arriving = False
        self._pending_bytes = 0
        self._inbox.append((None if self._binary else bytes(data), hold))

    def discard(self) -> None:
        """Drop the message that is arriving and ignore what follows, so that neither takes up memory."""
        self._discards = True
        self._protocol.reader.discard()
        self._message = None
        self._arriving.release()

    def send(self, message: bytes) -> None:
        """Queue the text message `message` (UTF-8) for sending. Never waits; a no-op once closing has begun."""
        if self.is_open:
            self._protocol.send_text(message)
            self._flush()

    def close(self, code: int, reason: str) -> None:
        """Start the closing handshake after queued messages. Never waits; a second call is a no-op."""
        if self.is_open:
            self._protocol.send_close(code, reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore"))
            self._flush()
            spawn(self._close_later)

    def drop(self, reason: str) -> None:
        """Reset the connection and discard unsent bytes."""
        if self.dropped is None:
            self.dropped = reason
            with suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._queue.clear()
            self._count(-self.buffered_bytes)

    def finish(self) -> None:
        """Wait until all bytes are sent and the peer has closed; ignore messages received meanwhile."""
        try:
            for _, hold in self.messages():
                hold.release()
        except GatewayError:
            self.drop("it sent too much after the end")
        self._written.wait()

    def release(self) -> None:
        """Give back what the connection, which has ended, takes up of the budget and of memory."""
        self._queue.clear()
        for hold in (self._backlog, self._arriving, *(hold for _, hold in self._inbox)):
            hold.release()
        self._inbox.clear()
        self._message = None
        self._protocol.parser_exc = None  # its traceback, a cycle of references, has the last message

    def _close_later(self) -> None:
        self._written.wait()
        sleep(CLOSE_SECONDS)
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _count(self, change: int) -> None:
        self.buffered_bytes += change
        self._backlog.add(change)

    def _flush(self) -> None:
        pieces = [piece for piece in self._protocol.data_to_send() if piece]
        if self.dropped is not None or not pieces:
            return
        self._queue.extend(pieces)
        self._count(sum(map(len, pieces)))
        if self.buffered_bytes > self._max_buffered_bytes:
            self.drop("it reads too slowly")
        elif not self._writing:
            self._writing = True
            self._written.clear()
            spawn(self._write)

    def _write(self) -> None:
        try:
            while self._queue and self.dropped is None:
                self._send_all(memoryview(self._next_batch()))
        except TimeoutError:
            self.drop("it accepted no data for too long")
        except OSError:
            self.drop("it disconnected")
        finally:
            self._writing = False
            self._written.set()

    def _next_batch(self) -> bytes:
        batch = [self._queue.popleft()]
        size = len(batch[0])
        while self._queue and size + len(self._queue[0]) <= _SEND_BYTES:
            batch.append(self._queue.popleft())
            size += len(batch[-1])
        return batch[0] if len(batch) == 1 else b"".join(batch)

    def _send_all(self, rest: memoryview) -> None:
        while rest and self.dropped is None:
            sent = self._socket.send(rest[:_SEND_BYTES])
            rest = rest[sent:]
            if self.dropped is None:
                self._count(-sent)
