"""A relay in front of a gateway that breaks each stream's first connection after some of its events."""

from __future__ import annotations

import socket
from contextlib import suppress

from support.listener import Listener, shut

_BYTES = 1500  # a few events
_STREAM = b"text/event-stream"


class CuttingRelay(Listener):
    """Listens on the loopback interface while its block runs; `cuts` are the requests whose answers were cut."""

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__()
        self.cuts: list[str] = []
        self.url = f"http://127.0.0.1:{self.port}"
        self._address = address

    def serve(self, connection: socket.socket) -> None:
        exchange = _Exchange(self, connection, self.connect(self._address))
        self.spawn(exchange.forward)
        exchange.answer()


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
                    self._request = data.partition(b"?")[0].partition(b" HTTP/")[0].decode()
                    self._streamed = 0
                self._server.sendall(data)
        shut(self._server)

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
