"""A CONNECT proxy: it accepts every host, terminates TLS for it, and forwards to the stub upstream."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from pathlib import Path

from support.listener import Listener, shut


class Tunnel(Listener):
    """Listens on the loopback interface while its block runs.

    What comes through the tunnel goes to port `to_port` of this machine, its TLS ended with the certificate in the file
    `certificate`. `heads` are the requests for a tunnel as they came; with `refusal` each of them gets that status.
    """

    def __init__(self, to_port: int, certificate: Path, refusal: str = "") -> None:
        super().__init__()
        self.heads: list[str] = []
        self.address = f"127.0.0.1:{self.port}"
        self._to_port = to_port
        self._refusal = refusal
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(certificate)

    def serve(self, connection: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        self.heads.append(head.decode())
        connection.sendall(f"HTTP/1.1 {self._refusal or '200 Connection established'}\r\n\r\n".encode())
        if self._refusal:
            connection.close()
            return
        inside = self._tls.wrap_socket(connection, server_side=True)
        self.keep(inside)
        stub = self.connect(("127.0.0.1", self._to_port))
        self.spawn(self._pump, inside, stub)
        self._pump(stub, inside)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        shut(source)
        shut(target)
