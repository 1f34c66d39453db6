"""What every HTTP response carries, whoever makes it: the security headers, the request's id, the error envelope."""

from __future__ import annotations

import re
import uuid
from typing import NamedTuple

import orjson

from service.errors import GatewayError

#: On every response of every path, malformed requests included.
SECURITY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Permissions-Policy", "camera=(), microphone=(), geolocation=()"),
)

REQUEST_ID_HEADER = "x-request-id"

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


class Reply(NamedTuple):
    """A whole response: the status line's text (`404 Not Found`), headers without the security ones, the body."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes


def choose_request_id(offered: str | None) -> str:
    """The id a request goes by: the caller's own if it is 1 to 128 printable ASCII characters, else a new one."""
    if offered is not None and _REQUEST_ID.fullmatch(offered):
        return offered
    return f"req_{uuid.uuid4().hex}"


def error_reply(error: GatewayError) -> Reply:
    """The response that tells `error`."""
    body = orjson.dumps(error.to_envelope())
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *error.headers.items()]
    return Reply(f"{error.status} {_REASONS[error.status]}", headers, body)
