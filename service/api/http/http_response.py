"""HTTP responses: security headers, request ids and the error envelope."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

import orjson

from service.core.errors import GatewayError

#: Sent with every response of every path, including those to malformed requests.
SECURITY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Permissions-Policy", "camera=(), microphone=(), geolocation=()"),
)

REQUEST_ID_HEADER = "x-request-id"

_DATE_HEADER = "date"
_COMMON_NAMES = frozenset((*(name.lower() for name, _ in SECURITY_HEADERS), REQUEST_ID_HEADER, _DATE_HEADER))
_SECURITY_LINES = "".join(f"{name}: {value}\r\n" for name, value in SECURITY_HEADERS)

#: Of an answer that repeats that of an earlier request with the same idempotency key.
REPLAYED = ("Idempotency-Replayed", "true")

#: The id of the run.
RUN_ID_HEADER = "x-openclaw-run-id"

#: Disables the buffering of nginx.
NO_BUFFERING = ("X-Accel-Buffering", "no")

_NO_STORE = ("Cache-Control", "no-store")
_REQUEST_ID = re.compile(r"[!-~]{1,128}")


class FramedPiece(bytes):
    """The rest of a piece of a stream that was sent in part, with its framing."""


class FinalPiece(bytes):
    """The last piece of a stream; the end of the body is sent with it."""


class Response(NamedTuple):
    """A response as a WSGI application.

    `status` is the text of the status line (`404 Not Found`), `headers` omits those that the server adds, `body` is
    the whole body or an iterable of its pieces.
    """

    status: str
    headers: list[tuple[str, str]]
    body: bytes | Iterable[bytes]

    def __call__(self, environ: object, start_response: Callable[..., object]) -> Iterable[bytes]:
        """Respond, whatever the request."""
        del environ
        start_response(self.status, self.headers)
        return [self.body] if isinstance(self.body, bytes) else self.body


def choose_request_id(offered: str | None) -> str:
    """Return the caller's request id if it is 1 to 128 printable ASCII characters, else a new one."""
    if offered is not None and _REQUEST_ID.fullmatch(offered):
        return offered
    return f"req_{os.urandom(16).hex()}"


@lru_cache(maxsize=1)
def http_date(second: int) -> str:
    """Format a Unix time for the header Date."""
    return formatdate(second, usegmt=True)


def common_lines(given: Mapping[str, str], request_id: str, second: int) -> str:
    """Format the headers common to all responses, without those that are `given` (by lower-case names)."""
    if _COMMON_NAMES.isdisjoint(given):
        return f"{_SECURITY_LINES}{REQUEST_ID_HEADER}: {request_id}\r\nDate: {http_date(second)}\r\n"
    pairs = (*SECURITY_HEADERS, (REQUEST_ID_HEADER, request_id), ("Date", http_date(second)))
    return "".join(f"{name}: {value}\r\n" for name, value in pairs if name.lower() not in given)


def format_head(status: str, headers: Sequence[tuple[str, str]], common: str = "") -> bytes:
    """Format a response's head, including the blank line; `common` are further lines.

    Raises `ValueError` for a line break in a header.
    """
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        raise ValueError("a response header contains a line break")
    return f"HTTP/1.1 {status}\r\n{lines}{common}\r\n".encode("latin-1")


def ok_response(content_type: str, body: bytes | Iterable[bytes], *headers: tuple[str, str]) -> Response:
    """Return a successful response that must not be stored."""
    return Response("200 OK", [("Content-Type", content_type), _NO_STORE, *headers], body)


def json_response(value: object) -> Response:
    """Return a successful response with `value` as JSON, which must not be stored."""
    return ok_response("application/json", orjson.dumps(value))


def created_response(value: object) -> Response:
    """Return the response for a created resource, `value` as JSON."""
    return Response("201 Created", [("Content-Type", "application/json"), _NO_STORE], orjson.dumps(value))


def accepted_response(value: object, location: str, *headers: tuple[str, str]) -> Response:
    """Return the response for work that has been accepted, which `location` shows."""
    given = [("Content-Type", "application/json"), _NO_STORE, ("Location", location), *headers]
    return Response("202 Accepted", given, orjson.dumps(value))


def no_content_response() -> Response:
    """Return a successful response without a body."""
    return Response("204 No Content", [_NO_STORE], b"")


def error_response(error: GatewayError) -> Response:
    """Return the response for `error`."""
    page = ("Link", f'</docs/errors/{error.code}>; rel="describedby"')
    headers = [("Content-Type", "application/json"), page, *error.headers.items()]
    return Response(f"{error.status} {HTTPStatus(error.status).phrase}", headers, orjson.dumps(error.to_envelope()))
