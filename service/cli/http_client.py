"""A small HTTP client for commands: one GET on a connection of its own, nothing that takes long to load."""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

import click

_MAX_ANSWER_BYTES = 16 * 1024 * 1024


class Unreachable(click.ClickException):
    """Nothing answers at an address, or not with HTTP."""


def get_json(url: str, *, secret: str = "", timeout_seconds: float | None = None) -> tuple[int, Any]:
    """The status and the decoded body of a GET, `None` for one that is not JSON.

    `timeout_seconds` bounds each wait. Raises `Unreachable`.
    """
    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout_seconds)
    try:
        connection.request("GET", parts.path, headers=_bearer(secret))
        response = connection.getresponse()
        return response.status, decode(response.read(_MAX_ANSWER_BYTES))
    except TimeoutError:
        raise Unreachable(f"{_address(url)} did not answer within {timeout_seconds:g} s.") from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Unreachable(f"{_address(url)} does not answer: {reason}.") from None
    finally:
        connection.close()


def _bearer(secret: str) -> dict[str, str]:
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
