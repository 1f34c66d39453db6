"""A stub of a model provider on real sockets, with both dialects, valid and invalid answers.

The `model` of a request chooses the answer, a row of `upstream_answers.ANSWERS` or, for a request to `/messages`, of
`upstream_answers_anthropic.ANSWERS`. `status-NNN` answers with that status; `fail-N-NNN` does so for the first N
requests, or drops the connection for the status 0, and is `ok` after them.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from support import upstream_answers_anthropic
from support.upstream_answers import ANSWERS, USAGE, WORDS, frame, refuse

_TICK_SECONDS = 0.02
_FAILING = re.compile(r"fail-(\d+)-(\d+)")


@dataclass(frozen=True)
class Received:
    """A request as it came: header names in lower case, `body` decoded (`None` for a GET)."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


class Upstream:
    """The stub, listening on the loopback interface while its block runs.

    `url` is the base URL (`.../v1`), `requests` what it was asked, in order; `answers` are those of the test itself, by
    model; `models` are those it lists, unless `listing` answers, and `listings` the GETs; `aborted` happens when a
    client leaves before its answer is complete.
    """

    def __init__(self, port: int = 0) -> None:
        self.requests: list[Received] = []
        self.answers: dict[str, Callable[[Exchange], None]] = {}
        self.models: list[str] = []
        self.listings: list[Received] = []
        self.listing: Callable[[Exchange], None] | None = None
        self.aborted = threading.Event()
        self.connections = 0
        self.closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._server = _Server(self, port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_TICK_SECONDS,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        for connection in tuple(self._open):
            shut(connection)
        self._server.server_close()  # joins the threads of the connections

    def forget(self) -> None:
        """Be as new, for the next test of a gateway that several share."""
        self.requests.clear()
        self.answers.clear()
        self.models.clear()
        self.listings.clear()
        self.listing = None
        self.aborted = threading.Event()

    def connected(self, connection: socket.socket) -> None:
        self.connections += 1
        self._open.add(connection)

    def disconnected(self, connection: socket.socket) -> None:
        self._open.discard(connection)


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, upstream: Upstream, port: int) -> None:
        self.upstream = upstream
        super().__init__(("127.0.0.1", port), Exchange)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # clients may leave as they like
            super().handle_error(request, client_address)


class _LeftError(Exception):
    """The client has gone."""


class Exchange(BaseHTTPRequestHandler):
    """One connection and the request that is being answered on it; the answers are written in its words."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server
    body: Any = None
    answered = 0  # requests of this connection that came before

    def setup(self) -> None:
        super().setup()
        self.server.upstream.connected(self.connection)

    def finish(self) -> None:
        self.server.upstream.disconnected(self.connection)
        super().finish()

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.upstream.listings.append(Received("GET", self.path, headers, None))
        self._while_there(self._list)

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self._received(self.body)
        self._while_there(lambda: self._answer(str(self.body.get("model"))))
        self.answered += 1

    def _list(self) -> None:
        path = self.path.partition("?")[0]
        if self.server.upstream.listing is not None:
            self.server.upstream.listing(self)
        elif path in ("/health", "/v1/models"):
            data = [{"id": model, "object": "model"} for model in self.server.upstream.models]
            self.json(200, {"object": "list", "data": data})
        else:
            self.json(404, {"error": {"message": f"no {self.path} here"}})

    def _while_there(self, answer: Callable[[], None]) -> None:
        aborted = self.server.upstream.aborted  # of the test that asked, not of one that runs when the client leaves
        try:
            answer()
        except (_LeftError, OSError):
            if not self.server.upstream.closing.is_set():
                aborted.set()
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def head(self, status: int = 200, content_type: str = "text/event-stream", **headers: str) -> None:
        """Begin an answer with a chunked body, or one that ends with the connection if `connection="close"`."""
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.chunked = headers.get("connection") != "close"
        if self.chunked and "content_length" not in headers:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def send(self, data: bytes) -> None:
        """Send a piece of the body at once."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data) if self.chunked else data)

    def event(self, delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> None:
        """Send one chunk of a completion."""
        self.send(frame({"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}], **more}))

    def words(self, pause_seconds: float = 0.0) -> None:
        for word in WORDS:
            self.event({"content": word})
            if pause_seconds:
                self.wait(pause_seconds)

    def end(self, finish_reason: str | None = "stop", usage: Any = USAGE) -> None:
        """The finish reason, the usage, `[DONE]` and the end of the body."""
        if finish_reason:
            self.event({}, finish_reason)
        self.send(frame({"choices": [], "usage": usage}))
        self.send(b"data: [DONE]\n\n")
        self.last_chunk()

    def last_chunk(self) -> None:
        if self.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def json(self, status: int, body: object, **headers: str) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def wait(self, seconds: float = 60.0) -> None:
        """Let time pass; ends with an exception when the client leaves or the stub is closed."""
        give_up_at = time.monotonic() + seconds
        while (left := give_up_at - time.monotonic()) > 0 and not self.server.upstream.closing.is_set():
            readable, _, _ = select.select([self.connection], [], [], min(left, _TICK_SECONDS))
            if readable and self.connection.recv(1, socket.MSG_PEEK) == b"":
                raise _LeftError

    def drop(self) -> None:
        """Close the connection, whatever has been sent."""
        self.close_connection = True
        shut(self.connection)

    def _answer(self, model: str) -> None:
        if failing := _FAILING.fullmatch(model):
            asked = sum(received.body["model"] == model for received in self.server.upstream.requests)
            model = "ok" if asked > int(failing[1]) else "drop-before" if failing[2] == "0" else f"status-{failing[2]}"
        dialect = upstream_answers_anthropic.ANSWERS if self.path.endswith("/messages") else ANSWERS
        if model.startswith("status-"):
            refuse(self, int(model.removeprefix("status-")))
        else:
            answer = self.server.upstream.answers.get(model) or dialect[model]
            answer(self)

    def _received(self, body: Any) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.upstream.requests.append(Received(self.command, self.path, headers, body))


def shut(connection: socket.socket) -> None:
    """Close both directions, whatever the other side did before."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def sent(upstream: Upstream, index: int = -1) -> list[dict[str, Any]]:
    """The messages of one of the requests."""
    messages: list[dict[str, Any]] = upstream.requests[index].body["messages"]
    return messages
