"""A small WSGI application on the real server, run as a process with the standard library patched.

`python -m gevent.monkey http1_app.py '{"limits": {...}}'` prints the port, then "stopping" and "stopped".
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs

from service.api.http.http_response import FramedPiece
from service.core.concurrency import Event
from service.core.disconnect import watch_disconnect
from service.core.errors import GatewayError
from service.core.logs import access_entry
from service.server.http1.connection import ConnectionLimits
from service.server.http1.server import Server
from service.server.lifecycle import Stop, run_until_stopped

Environ = dict[str, Any]
Start = Callable[..., Callable[[bytes], None]]


class Application:
    """One method per path; `closed` counts streams that were closed."""

    def __init__(self) -> None:
        self.closed = 0
        self._step = Event()

    def __call__(self, environ: Environ, start_response: Start) -> Any:
        name = environ["PATH_INFO"].strip("/").partition("/")[0].replace("-", "_")
        environ["query"] = {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
        return getattr(self, f"answer_{name}", self.answer_hello)(environ, start_response)

    def answer_hello(self, _: Environ, start_response: Start) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hel", b"lo"]

    def answer_echo(self, environ: Environ, start_response: Start) -> list[bytes]:
        body = environ["wsgi.input"].read(int(environ["query"].get("size", -1)))
        entry = access_entry(environ)
        entry.agent, entry.run = "ma in", "r1"
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return [body]

    def answer_environ(self, environ: Environ, start_response: Start) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps({key: value for key, value in environ.items() if isinstance(value, str)}).encode()]

    def answer_refuse(self, _: Environ, start_response: Start) -> list[bytes]:
        start_response("401 Unauthorized", [("Content-Length", "2")])
        return [b"no"]

    def answer_stream(self, environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return self._pieces(int(environ["query"]["count"]), float(environ["query"].get("gap", 0)))

    def _pieces(self, count: int, gap_seconds: float) -> Iterator[bytes]:
        try:
            for number in range(count):
                yield b"%d\n" % number
                time.sleep(gap_seconds)
        finally:
            self.closed += 1

    def answer_stepped(self, _: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"0\n"
        self._step.wait()
        yield b"1\n"

    def answer_step(self, environ: Environ, start_response: Start) -> list[bytes]:
        self._step.set()
        return self.answer_hello(environ, start_response)

    def answer_flood(self, _: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            while True:
                yield b"x" * 1_000_000
        finally:
            self.closed += 1

    def answer_offer(self, environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"begun"
        if rest := environ["openclaw.offer"](b"x" * int(environ["query"]["size"])):
            yield FramedPiece(rest)

    def answer_closed(self, _: Environ, start_response: Start) -> list[bytes]:
        start_response("200 OK", [])
        return [str(self.closed).encode()]

    def answer_hangup(self, environ: Environ, start_response: Start) -> list[bytes]:
        gone = Event()
        with watch_disconnect(environ["openclaw.connection"], gone.set):
            gone.wait(float(environ["query"].get("seconds", 5)))
        self.closed += gone.is_set()
        return self.answer_hello(environ, start_response)

    def answer_watched_stream(self, environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        gone = Event()
        with watch_disconnect(environ["openclaw.connection"], gone.set):
            for number in range(int(environ["query"]["count"])):
                yield b"%d\n" % number
                if gone.wait(float(environ["query"]["gap"])):
                    self.closed += 1
                    return

    def answer_crash(self, _: Environ, __: Start) -> list[bytes]:
        raise RuntimeError("a secret in a traceback")

    def answer_crash_late(self, _: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"begun"
        raise RuntimeError("after the headers")

    def answer_exit(self, _: Environ, __: Start) -> list[bytes]:
        raise SystemExit(3)

    def answer_error(self, _: Environ, __: Start) -> list[bytes]:
        raise GatewayError("session_busy", "Another run has the session.", headers={"Retry-After": "1"})

    def answer_text(self, _: Environ, start_response: Start) -> Iterator[Any]:
        start_response("200 OK", [])
        yield "text instead of bytes"

    def answer_late(self, environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"begun"
        yield environ["wsgi.input"].read()

    def answer_silent(self, _: Environ, __: Start) -> list[bytes]:
        return [b"no start_response"]

    def answer_short(self, _: Environ, start_response: Start) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "10")])
        return [b"12345"]

    def answer_empty(self, _: Environ, start_response: Start) -> list[bytes]:
        start_response("204 No Content", [])
        return []

    def answer_upgrade(self, environ: Environ, start_response: Start) -> list[bytes]:
        write = start_response("101 Switching Protocols", [("Upgrade", "echo"), ("Connection", "Upgrade")])
        write(b"")
        connection = environ["openclaw.socket"]
        connection.sendall(environ["openclaw.early"])
        while data := connection.recv(1000):
            connection.sendall(data)
        return []


def main() -> None:
    options = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s")
    if "open_files" in options:
        resource.setrlimit(resource.RLIMIT_NOFILE, (options["open_files"], options["open_files"]))
    server = Server(("127.0.0.1", 0), Application(), limits=ConnectionLimits(**options.get("limits", {})))
    server.start()
    print(server.server_port, flush=True)
    run_until_stopped(server, Stop(options.get("grace_seconds", 5), lambda: print("stopping", flush=True)))
    print("stopped", flush=True)


if __name__ == "__main__":
    main()
