"""A CONNECT proxy: it accepts every host, terminates TLS for it, and forwards to the stub upstream."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self


class Tunnel:
    """Listens on the loopback interface while its block runs.

    What comes through the tunnel goes to port `to_port` of this machine, its TLS ended with the certificate in the file
    `certificate`. `heads` are the requests for a tunnel as they came; with `refusal` each of them gets that status.
    """

    def __init__(self, to_port: int, certificate: Path, refusal: str = "") -> None:
        self.heads: list[str] = []
        self._to_port = to_port
        self._refusal = refusal
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(certificate)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in (self._listener, *self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for connection in (self._listener, *self._open):
            connection.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                self._run(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        self.heads.append(head.decode())
        connection.sendall(f"HTTP/1.1 {self._refusal or '200 Connection established'}\r\n\r\n".encode())
        if self._refusal:
            connection.close()
            return
        inside = self._tls.wrap_socket(connection, server_side=True)
        stub = socket.create_connection(("127.0.0.1", self._to_port))
        self._open += [inside, stub]
        self._run(self._pump, inside, stub)
        self._pump(stub, inside)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for connection in (source, target):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _run(self, function: Callable[..., None], *arguments: socket.socket) -> None:
        def run() -> None:
            with suppress(OSError):
                function(*arguments)

        thread = threading.Thread(target=run)
        self._threads.append(thread)
        thread.start()
