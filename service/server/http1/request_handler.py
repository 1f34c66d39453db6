"""The requests of one connection and their responses.

The application only receives well-formed requests. Every response, including refusals by this module, passes through
`RequestHandler.start_response` and carries the security headers and the request id.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gevent
from gevent.pywsgi import WSGIHandler

from service.api.http import http_response
from service.core.byte_budget import HOLD_KEY
from service.core.errors import GatewayError, internal_error
from service.core.logs import ENTRY_KEY, AccessEntry, to_logfmt, write_access_line
from service.core.signals import RequestEnded, open_streams, request_ended
from service.server.http1.body import CONTINUE, Body
from service.server.http1.connection import Connection, PeerGoneError
from service.server.http1.parser import Framing, Head, parse_framing, parse_head

if TYPE_CHECKING:
    from service.server.http1.server import Server

_log = logging.getLogger("openclaw.server")

_NO_BODY = Framing(content_length=None, chunked=False, expects_continue=False, keep_alive=False)
_SWITCHING_PROTOCOLS = 101
_OK = 200
_BODILESS = (204, 304)
_LAST_CHUNK = b"0\r\n\r\n"


class RequestHandler(WSGIHandler):  # type: ignore[misc]  # gevent has no types
    """The requests of one connection and their responses, one after another.

    In addition to WSGI's keys the environ has `openclaw.request_id`, `openclaw.connection` (for `watch_disconnect`),
    `openclaw.socket`, `openclaw.offer` (see `offer`) and the request's `AccessEntry`. With status 101 the socket
    belongs to the application until it returns; `openclaw.early` has the bytes received before. The application may set
    `HOLD_KEY`.
    """

    head: Head | None
    body: Body
    request_id: str
    environ: Any
    result: Any
    status: str | None
    command: str | None
    request_version: str | None
    code: int | None
    response_headers: list[tuple[str, str]]
    ended: bool
    complete: bool
    _common_lines: str
    _probed: bool
    _unsent_length: int

    def __init__(self, sock: socket.socket, address: Any, server: Server) -> None:
        # The parent's constructor is not called: it would wrap the socket in a buffered file.
        self.socket = sock
        self.client_address = address
        self.peer = str(address[0]) if isinstance(address, tuple) else "unix"
        self.server = server
        self.connection = Connection(sock, server.limits, server.clock)
        self._expects_more = False

    def handle(self) -> None:
        """Serve the connection until its end and close it."""
        try:
            while self.handle_one_request():
                pass
            self.connection.close(expects_more=self._expects_more)
        except PeerGoneError:
            pass
        except Exception:  # noqa: BLE001 - the top of a connection: a defect must not affect others
            _log.exception("connection closed after an internal error")
        finally:
            self.socket.close()
            self.connection.probe = None  # it refers to this object, and so does the environ
            self.environ = None

    def handle_one_request(self) -> bool:
        """Wait for one request and answer it; returns whether the connection stays open."""
        if not self.server.wait_for_request(self.connection):
            return False
        self._reset()
        try:
            framing = self._read_head()
        except GatewayError as error:
            self.body = Body(self.connection, _NO_BODY)
            self.close_connection = self._expects_more = True
            self._send_error(error)
            self.log_request()
            return False
        self.body = Body(self.connection, framing)
        self.close_connection = not framing.keep_alive
        self.environ = self.get_environ()
        self.application = self.server.application
        self.handle_one_response()
        self._expects_more = not self.body.is_at_hand
        if not self.close_connection:
            self.body.discard()
            self.connection.is_kept = True
        return not self.close_connection

    def _reset(self) -> None:
        self.time_start = self.server.clock()
        self.head = self.environ = self.result = self.status = self.code = self.request_version = self.command = None
        self.path, self.request_id = "-", ""
        self.connection.probe = self._next_probe
        self._probed = False
        self.headers_sent = self.response_use_chunked = self.connection_upgraded = self.ended = self.complete = False
        self.response_length = self._unsent_length = 0

    def _read_head(self) -> Framing:
        try:
            self.head = head = parse_head(self.server.read_head(self.connection, self.peer))
        finally:
            self.request_id = http_response.choose_request_id(
                self.head and self.head.headers.get(http_response.REQUEST_ID_HEADER)
            )
        self.command, self.path, self.request_version, self.headers = head
        return parse_framing(head)

    def get_environ(self) -> dict[str, Any]:
        """Return the WSGI environ of the current request."""
        environ: dict[str, Any] = self.server.get_environ()
        if self.head is not None:
            environ.update(self.head.to_environ())
        if isinstance(self.client_address, tuple):
            environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = self.client_address[0], str(self.client_address[1])
        environ["wsgi.input"] = self.body
        environ["wsgi.input_terminated"] = True
        environ["openclaw.request_id"] = self.request_id
        environ["openclaw.connection"] = self.connection
        environ["openclaw.socket"] = self.socket
        environ["openclaw.offer"] = self.offer
        environ[ENTRY_KEY] = AccessEntry()
        return environ

    def handle_one_response(self) -> None:
        """Run the application and send its response, or the error response for its failure."""
        try:
            self.run_application()
        except PeerGoneError:
            self.close_connection = True
        except GatewayError as error:
            if self.headers_sent:
                self._log_failure()
            self._send_error(error)
        except gevent.GreenletExit:
            raise
        except BaseException:  # noqa: BLE001 - the top level: a stray cancellation must not end the process either
            self._log_failure()
            self._send_error(internal_error())
        finally:
            if HOLD_KEY in self.environ:
                self.environ[HOLD_KEY].release()
            self.log_request()

    def _log_failure(self) -> None:
        _log.exception("%s %s failed (request %s).", self.command, to_logfmt(self.path), self.request_id)

    def _send_error(self, error: GatewayError) -> None:
        if self.headers_sent:
            self.close_connection = True  # a cut response shows the peer that it is incomplete
            return
        try:
            self.result = http_response.error_response(error)(self.environ, self.start_response)
            self.process_result()
        except PeerGoneError:
            self.close_connection = True

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[..., None]:
        """Implement WSGI's `start_response`; adds the headers common to all responses."""
        if exc_info is not None and self.headers_sent:
            raise exc_info[1]
        given = {name.lower(): value for name, value in headers}
        self.code = int(status[:3])
        self.status = status
        self.response_headers = [*headers]
        self._common_lines = http_response.common_lines(given, self.request_id, int(time.time()))
        if "connection" in given and self.code != _SWITCHING_PROTOCOLS:
            self.close_connection = self.close_connection or given["connection"] == "close"
            self.response_headers = [pair for pair in headers if pair[0].lower() != "connection"]
        self.provided_content_length = given.get("content-length")
        self.response_use_chunked = False  # an earlier call may have set it
        return self.write

    def finalize_headers(self) -> None:
        """Determine the response's framing and whether the connection stays open."""
        self.connection_upgraded = self.code == _SWITCHING_PROTOCOLS
        if self.connection_upgraded:
            self.close_connection = True
            self.environ["openclaw.early"] = self.connection.take_buffer()
            return
        self._frame()
        if self.server.draining or not self.body.is_at_hand:
            self.close_connection = True
        if self.close_connection:
            self.response_headers.append(("Connection", "close"))
        elif self.request_version == "HTTP/1.0":
            self.response_headers.append(("Connection", "keep-alive"))

    def _frame(self) -> None:
        if self.provided_content_length is not None or self.code in _BODILESS:
            return
        if hasattr(self.result, "__len__"):
            self.response_headers.append(("Content-Length", str(sum(map(len, self.result)))))
        elif self.request_version != "HTTP/1.0":
            self.response_use_chunked = self.command != "HEAD"
            self.response_headers.append(("Transfer-Encoding", "chunked"))
        elif self.command != "HEAD":
            self.close_connection = True

    def write(self, data: bytes) -> None:
        """Send a piece of the body immediately, the first one with the headers. Raises `PeerGoneError`."""
        if self.status is None:
            raise self.ApplicationError("The application did not call start_response.")
        if data and self.code in _BODILESS:
            raise self.ApplicationError(f"A {self.code} response must have no body.")
        if isinstance(data, http_response.FramedPiece):
            self._sendall(data)
            self.response_length += self._unsent_length
            return
        sent = b""
        if not self.headers_sent:
            self.finalize_headers()
            sent = http_response.format_head(self.status, self.response_headers, self._common_lines)
        if self.command == "HEAD":
            data = b""
        if not self.response_use_chunked:
            sent += data
        elif data:
            self.ended = isinstance(data, http_response.FinalPiece)
            sent += b"%x\r\n%b\r\n%b" % (len(data), data, _LAST_CHUNK if self.ended else b"")
        self.headers_sent = True
        self.body.owes_continue = False
        self._sendall(sent)
        self.response_length += len(data)

    def offer(self, data: bytes) -> bytes:
        """Send a piece of a stream whose application waits, as far as the socket takes it.

        The application has to go on with the rest, as a `FramedPiece`.
        """
        rest = self.connection.offer(b"%x\r\n%b\r\n" % (len(data), data) if self.response_use_chunked else data)
        self._unsent_length = len(data) if rest else 0
        self.response_length += len(data) - self._unsent_length
        return rest

    def _sendall(self, data: bytes) -> None:
        if data:
            self.connection.send(data)
        if self.connection_upgraded:
            self.socket.settimeout(None)

    def process_result(self) -> None:
        """Send the application's result: a list in one write, a stream piece by piece."""
        if isinstance(self.result, (list, tuple)):
            body = b"".join(self.result)
            if body:
                self.write(body)
        else:
            open_streams.value += 1
            try:
                for piece in self.result:
                    if piece:
                        self.write(piece)
            finally:
                open_streams.value -= 1
        if not self.headers_sent:
            self.write(b"")
        if self.response_use_chunked and not self.ended:
            self._sendall(_LAST_CHUNK)
        self.complete = self.command == "HEAD" or self.provided_content_length in (None, str(self.response_length))
        if not self.complete:
            _log.error("%s %s: the body is not as long as its Content-Length.", self.command, to_logfmt(self.path))
            self.close_connection = True

    def _next_probe(self) -> bytes | None:
        # An interim response, or a leading zero of the next chunk's size: neither alters the response.
        if self._probed:
            return b""
        if self.headers_sent:
            probe = b"0" if self.response_use_chunked and not self.ended else None
        else:
            probe = CONTINUE if self.request_version == "HTTP/1.1" else None
        self._probed = probe is not None
        return probe

    def log_request(self) -> None:
        """Write the access log line of the finished request."""
        self.time_finish = self.server.clock()
        entry = self.environ[ENTRY_KEY] if self.environ else AccessEntry()
        status, seconds = entry.status or self.code or 0, self.time_finish - self.time_start
        if request_ended.receivers:
            request_ended.emit(RequestEnded(self.command or "-", entry.route, status, seconds))
        fields: dict[str, str | float] = {
            "method": self.command or "-",
            "path": self.path.partition("?")[0],
            "status": status or "-",
            "duration_ms": round(seconds * 10_000) / 10,  # half the instructions of rounding to a digit
            "bytes": self.response_length,
            "request_id": self.request_id,
            "client": entry.client or self.peer,
        }
        if not self.complete:
            fields["complete"] = "no"
        is_detail = entry.is_routine and status == _OK and self.complete
        write_access_line(fields, entry, logging.DEBUG if is_detail else logging.INFO)
