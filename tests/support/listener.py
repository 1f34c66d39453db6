"""A server on the loopback interface with a thread for each connection."""

from __future__ import annotations

import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self


class Listener(ABC):
    """Listens on `port` while its block runs, and calls `serve` with each connection, in a thread of its own."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._is_ending = False

    @abstractmethod
    def serve(self, connection: socket.socket) -> None:
        """Serve a connection."""

    def connect(self, address: tuple[str, int]) -> socket.socket:
        """Connect to `address` until the end of the block."""
        return self.keep(socket.create_connection(address))

    def keep(self, connection: socket.socket) -> socket.socket:
        """Close `connection` at the end of the block, or end it now if that has come."""
        with self._lock:
            self._open.append(connection)
            if self._is_ending:
                shut(connection)
        return connection

    def spawn(self, function: Callable[..., None], *arguments: socket.socket) -> None:
        """Call `function` in a thread, which ends silently when a connection breaks."""

        def run() -> None:
            with suppress(OSError):
                function(*arguments)

        thread = threading.Thread(target=run)
        self._threads.append(thread)
        thread.start()

    def __enter__(self) -> Self:
        self.spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._is_ending = True
            for connection in (self._listener, *self._open):
                shut(connection)
        for thread in self._threads:
            thread.join()
        for connection in (self._listener, *self._open):
            connection.close()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            self.spawn(self.serve, self.keep(connection))


def shut(connection: socket.socket) -> None:
    """End both directions of `connection`."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
