"""Relays in front of a gateway that break streams after some of their events."""

from __future__ import annotations

import socket
from contextlib import suppress

from support.listener import Listener, shut

_BYTES = 1500  # a few events
_STREAM = b"text/event-stream"


class CuttingRelay(Listener):
    """Listens on the loopback interface while its block runs, and breaks the first stream of each path.

    `cuts` are the requests whose answers were cut.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__()
        self.cuts: list[str] = []
        self.url = f"http://127.0.0.1:{self.port}"
        self._address = address

    def serve(self, connection: socket.socket) -> None:
        exchange = _Exchange(self, connection, self.connect(self._address))
        self.spawn(exchange.forward)
        exchange.answer()


class SteppingRelay(CuttingRelay):
    """Breaks the stream of each POST after one event more than that of the one before, then once what follows it."""

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address)
        self._posts = -1
        self._follows_post = False

    def serve(self, connection: socket.socket) -> None:
        exchange = _SteppingExchange(self, connection, self.connect(self._address))
        self.spawn(exchange.forward)
        exchange.answer()

    def step(self, method: bytes) -> int | None:
        """Return after how many events the answer to the next request is cut."""
        if method == b"POST":
            self._posts += 1
            self._follows_post = True
            return self._posts
        follows_post, self._follows_post = self._follows_post, False
        return 2 if follows_post else None


class _Exchange:
    """One connection and what goes through it."""

    def __init__(self, relay: CuttingRelay, client: socket.socket, server: socket.socket) -> None:
        self._relay = relay
        self._client = client
        self._server = server
        self._request = ""
        self._streamed = 0  # bytes of a stream

    def forward(self) -> None:
        with suppress(OSError):
            while data := self._client.recv(65536):
                if data.partition(b" ")[0] in (b"GET", b"POST"):
                    self._begin(data)
                self._server.sendall(data)
        shut(self._server)

    def _begin(self, request: bytes) -> None:
        self._request = request.partition(b"?")[0].partition(b" HTTP/")[0].decode()
        self._streamed = 0

    def answer(self) -> None:
        with suppress(OSError):
            while data := self._server.recv(65536):
                if self._streamed or _STREAM in data.partition(b"\r\n\r\n")[0]:
                    self._streamed += len(data)
                if self._streamed > _BYTES and self._request not in self._relay.cuts:
                    self._relay.cuts.append(self._request)
                    self._client.sendall(data[: len(data) // 2])
                    break
                self._client.sendall(data)
        shut(self._client)
        shut(self._server)


class _SteppingExchange(_Exchange):
    def __init__(self, relay: SteppingRelay, client: socket.socket, server: socket.socket) -> None:
        super().__init__(relay, client, server)
        self._steps = relay
        self._events: int | None = None
        self._received = b""

    def _begin(self, request: bytes) -> None:
        self._events = self._steps.step(request.partition(b" ")[0])
        self._received = b""

    def answer(self) -> None:
        with suppress(OSError):
            while data := self._server.recv(65536):
                before = len(self._received)
                self._received += data
                end = None if self._events is None else _end_of(self._received, self._events)
                self._client.sendall(self._received[before:end])
                if end is not None:
                    break
        shut(self._client)
        shut(self._server)


def _end_of(received: bytes, events: int) -> int | None:
    """Return where the head of an answer and so many events end; `None` before that."""
    _, found, body = received.partition(b"\r\n\r\n")
    parts = body.split(b"\n\n", events)
    return len(received) - len(parts[events]) if found and len(parts) > events else None
