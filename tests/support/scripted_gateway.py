"""A server that answers requests one after the other with what a test has written."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from support.listener import Listener, shut

_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n"


@dataclass(frozen=True)
class Asked:
    """A request as it came: its line, its head in lower case, its body, and when."""

    line: str
    head: str
    body: bytes
    at: float


class ScriptedGateway(Listener):
    """Answers each request with the next of `answers`, each of which is sent piece by piece."""

    def __init__(self, answers: Sequence[Sequence[bytes]]) -> None:
        super().__init__()
        self.requests: list[Asked] = []
        self.url = f"http://127.0.0.1:{self.port}"
        self._answers = list(answers)

    def serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection.makefile("rb") as reader:
            lines = [line.decode().strip() for line in iter(reader.readline, b"\r\n") if line]
            head = "\n".join(lines[1:]).lower()
            length = next((line.partition(":")[2] for line in head.splitlines() if "content-length" in line), "0")
            self.requests.append(Asked(lines[0], head, reader.read(int(length)), time.monotonic()))
        for piece in self._answers.pop(0) if self._answers else ():
            connection.sendall(piece)
        shut(connection)


def answer(status: str, body: str = "", *headers: str) -> list[bytes]:
    """Return a whole answer."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return ["\r\n".join([*head, "", body]).encode()]


def stream(pieces: Iterable[bytes], *, is_whole: bool = True) -> list[bytes]:
    """Return a stream, whose every piece is a chunk of the transfer encoding."""
    head = _STREAM + b"x-openclaw-run-id: chatcmpl_1\r\n\r\n"
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    return [head, *chunks, *([b"0\r\n\r\n"] if is_whole else [])]
