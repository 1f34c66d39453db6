"""A small HTTP client for commands: one request per connection, without slow imports."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

import click

#: The code of errors about a gateway that does not answer; all others are the gateway's.
UNREACHABLE = "gateway_unreachable"

_MAX_ANSWER_BYTES = 16 * 1024 * 1024


class Unreachable(click.ClickException):
    """No HTTP server answers at an address."""

    code = UNREACHABLE


def get_json(url: str, *, secret: str = "", timeout_seconds: float | None = None) -> tuple[int, Any]:
    """Send a GET and return the status and the decoded body, as `request_json` does."""
    return request_json("GET", url, secret=secret, timeout_seconds=timeout_seconds)


def request_json(method: str, url: str, *, secret: str = "", timeout_seconds: float | None = None) -> tuple[int, Any]:
    """Send a request without a body and return the status and the decoded body, `None` if it is not JSON.

    `timeout_seconds` limits each wait. Raises `Unreachable`.
    """
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    with connect(url, timeout_seconds) as connection:
        connection.request(method, target, headers=request_headers(secret))
        response = connection.getresponse()
        return response.status, decode(response.read(_MAX_ANSWER_BYTES))


@contextmanager
def connect(url: str, timeout_seconds: float | None) -> Iterator[HTTPConnection]:
    """Connect to the host of `url`; `timeout_seconds` limits each wait. Errors of the block become `Unreachable`."""
    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout_seconds)
    try:
        yield connection
    except TimeoutError:
        raise Unreachable(f"{_address(url)} did not answer within {timeout_seconds:g} s.") from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Unreachable(f"{_address(url)} does not answer: {reason}.") from None
    finally:
        connection.close()


def request_headers(secret: str) -> dict[str, str]:
    """Build the Authorization header, if there is a secret. http.client takes one character per byte."""
    return {"Authorization": f"Bearer {secret}".encode().decode("latin-1")} if secret else {}


def decode(body: bytes) -> Any:
    """Decode JSON; `None` for anything else."""
    try:
        return json.loads(body)
    except ValueError:
        return None


def error_message(body: Any) -> str:
    """Return the message of an error body."""
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else "The response is not a gateway's."


def error_code(body: Any) -> str | None:
    """Return the code of an error body, if it has one."""
    error = body.get("error") if isinstance(body, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) else None


def _address(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
