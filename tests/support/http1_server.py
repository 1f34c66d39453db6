"""A server process under test and raw-socket clients for it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

_HERE = Path(__file__).parent
_PATIENCE_SECONDS = 30


class Answer(NamedTuple):
    """One response as received; `headers` has lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes


def parse_answer(raw: bytes) -> Answer:
    """Split a complete response. The body keeps its chunked framing."""
    head, blank, body = raw.partition(b"\r\n\r\n")
    assert blank, f"no whole response in {raw[:200]!r}"
    line, *fields = head.decode("latin-1").split("\r\n")
    assert line.startswith("HTTP/1.1 ")
    pairs = [field.split(": ", 1) for field in fields]
    assert len(pairs) == len(dict(pairs)), "a header came twice"
    return Answer(int(line[9:12]), {name.lower(): value for name, value in pairs}, body)


def read_to_end(connection: socket.socket) -> bytes:
    """Read until the server closes."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def read_until(connection: socket.socket, mark: bytes) -> bytes:
    """Read until `mark` has arrived, and return everything received."""
    received = b""
    while mark not in received:
        data = connection.recv(65536)
        assert data, f"closed after {received[:200]!r}"
        received += data
    return received


class Edge:
    """A running server process."""

    def __init__(self, process: subprocess.Popen[str], log: IO[str]) -> None:
        self.process = process
        self._log = log
        self.port = int(self.next_line())

    def next_line(self) -> str:
        """Return the next line of the process's output."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def connect(self) -> socket.socket:
        """Open a connection to the server."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=_PATIENCE_SECONDS)

    def ask(self, raw: bytes) -> Answer:
        """Send `raw` on a new connection and read until the server closes it."""
        with self.connect() as connection:
            connection.sendall(raw)
            return parse_answer(read_to_end(connection))

    def get(self, target: str, *fields: str) -> Answer:
        """Return the response to one GET with `Connection: close`."""
        lines = [f"GET {target} HTTP/1.1", "Host: edge", "Connection: close", *fields, "", ""]
        return self.ask("\r\n".join(lines).encode())

    def logged(self) -> str:
        """Return the process's standard error so far."""
        return Path(self._log.name).read_text(encoding="utf-8")

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for the process to end and return its exit status."""
        return self.process.wait(_PATIENCE_SECONDS)


@contextmanager
def open_edge(log_path: Path, **options: Any) -> Iterator[Edge]:
    """Start `http1_app.py` with `options`; kill it at the end."""
    command = [sys.executable, "-m", "gevent.monkey", str(_HERE / "http1_app.py"), json.dumps(options)]
    environment = {**os.environ, "PYTHONPATH": str(_HERE.parents[1])}
    with log_path.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        with process:
            try:
                yield Edge(process, log)
            finally:
                process.kill()
