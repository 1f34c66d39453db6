"""What every HTTP response carries, whoever makes it: the security headers, the request's id, the error envelope."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from email.utils import formatdate
from functools import lru_cache
from typing import NamedTuple

import orjson

from service.core.errors import GatewayError

#: On every response of every path, malformed requests included.
SECURITY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Permissions-Policy", "camera=(), microphone=(), geolocation=()"),
)

REQUEST_ID_HEADER = "x-request-id"

_NO_STORE = ("Cache-Control", "no-store")
_REQUEST_ID = re.compile(r"[!-~]{1,128}")

_REASONS = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    414: "URI Too Long",
    415: "Unsupported Media Type",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


class FinalPiece(bytes):
    """A stream's last piece: nothing follows it, so the body's end is sent with it."""


class Response(NamedTuple):
    """A response as a WSGI application.

    It has the status line's text (`404 Not Found`), the headers without those that the server adds, and the body: all
    of it, or its pieces as they come.
    """

    status: str
    headers: list[tuple[str, str]]
    body: bytes | Iterable[bytes]

    def __call__(self, environ: object, start_response: Callable[..., object]) -> Iterable[bytes]:
        """RunResult, whatever was asked."""
        del environ
        start_response(self.status, self.headers)
        return [self.body] if isinstance(self.body, bytes) else self.body


def choose_request_id(offered: str | None) -> str:
    """The id a request goes by: the caller's own if it is 1 to 128 printable ASCII characters, else a new one."""
    if offered is not None and _REQUEST_ID.fullmatch(offered):
        return offered
    return f"req_{os.urandom(16).hex()}"


@lru_cache(maxsize=1)
def http_date(second: int) -> str:
    """The second since 1970 as the header Date has it."""
    return formatdate(second, usegmt=True)


def format_head(status: str, headers: Sequence[tuple[str, str]]) -> bytes:
    """A response's head, blank line included. Raises `ValueError` for what would break out of its line."""
    lines = [f"{name}: {value}" for name, value in headers]
    head = "\r\n".join((f"HTTP/1.1 {status}", *lines, "", ""))
    if head.count("\n") != len(lines) + 2 or head.count("\r") != len(lines) + 2:
        raise ValueError("a response header holds a line break")
    return head.encode("latin-1")


def ok_reply(content_type: str, body: bytes | Iterable[bytes], *headers: tuple[str, str]) -> Response:
    """A successful response that nobody may keep."""
    return Response("200 OK", [("Content-Type", content_type), _NO_STORE, *headers], body)


def json_reply(value: object) -> Response:
    """A successful response with `value` as JSON, which nobody may keep."""
    return ok_reply("application/json", orjson.dumps(value))


def error_response(error: GatewayError) -> Response:
    """The response that tells `error`."""
    headers = [("Content-Type", "application/json"), *error.headers.items()]
    return Response(f"{error.status} {_REASONS[error.status]}", headers, orjson.dumps(error.to_envelope()))
