"""A small HTTP client for commands: one request on a connection of its own, nothing that takes long to load."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

import click

_MAX_ANSWER_BYTES = 16 * 1024 * 1024


class Unreachable(click.ClickException):
    """Nothing answers at an address, or not with HTTP."""


@contextmanager
def exchange(
    url: str,
    *,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    timeout_seconds: float | None = None,
    connect_seconds: float | None = None,
) -> Iterator[HTTPResponse]:
    """The answer to a GET, or with `body` to a POST of JSON, its body still on the way; leaving hangs up.

    `timeout_seconds` bounds each wait, `connect_seconds` that for the connection alone. Raises `Unreachable`, also for
    what goes wrong inside the block.
    """
    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout_seconds or connect_seconds)
    try:
        connection.connect()
        if connection.sock is not None:
            connection.sock.settimeout(timeout_seconds)
        if body is None:
            connection.request("GET", parts.path, headers=dict(headers or {}))
        else:
            head = {"Content-Type": "application/json", **(headers or {})}
            connection.request("POST", parts.path, json.dumps(body).encode(), head)
        yield connection.getresponse()
    except TimeoutError:
        raise Unreachable(f"{_address(url)} did not answer within {timeout_seconds or connect_seconds:g} s.") from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Unreachable(f"{_address(url)} does not answer: {reason}.") from None
    finally:
        connection.close()


def get_json(url: str, *, secret: str = "", timeout_seconds: float | None = None) -> tuple[int, Any]:
    """The status and the decoded body of a GET, `None` for one that is not JSON. Raises `Unreachable`."""
    with exchange(url, headers=bearer(secret), timeout_seconds=timeout_seconds) as response:
        return response.status, decode(response.read(_MAX_ANSWER_BYTES))


def bearer(secret: str) -> dict[str, str]:
    """The header that proves who is calling; without a secret none. HTTP's client wants one character for each byte."""
    return {"Authorization": f"Bearer {secret}".encode().decode("latin-1")} if secret else {}


def decode(body: bytes) -> Any:
    """JSON, or `None` for what is none."""
    try:
        return json.loads(body)
    except ValueError:
        return None


def error_message(body: Any) -> str:
    """What an error's body says."""
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else "The answer is not a gateway's."


def _address(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
