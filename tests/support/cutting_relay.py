"""A relay in front of a gateway that breaks each stream's first connection after some of its events."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

_BYTES = 1500  # a few events
_STREAM = b"text/event-stream"


class CuttingRelay:
    """Listens on the loopback interface while its block runs; `cuts` are the requests whose answers were cut."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.cuts: list[str] = []
        self._address = address
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in (self._listener, *self._open):
            _shut(connection)
        for thread in self._threads:
            thread.join()
        for connection in (self._listener, *self._open):
            connection.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._address)
                self._open += [client, server]
                exchange = _Exchange(self, client, server)
                for target in (exchange.forward, exchange.answer):
                    self._threads.append(threading.Thread(target=target))
                    self._threads[-1].start()


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
        _shut(self._server)

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
        _shut(self._client)
        _shut(self._server)


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
