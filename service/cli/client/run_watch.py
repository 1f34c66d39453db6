"""Follow a run's events over HTTP, connecting again whenever the connection is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from typing import Any
from urllib.parse import urlsplit

import click

from service.cli.client.address import GatewayAddress
from service.cli.client.http import Unreachable, connect, decode, error_code, error_message, request_headers
from service.cli.shared.common import note

_OK, _NO_CONTENT, _UNAUTHORIZED, _SERVER_ERROR = 200, 204, 401, 500

#: Longer than the gateway's interval between comment lines.
_SILENCE_SECONDS = 45.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 5.0

_MAX_REFUSAL_BYTES = 64 * 1024
_DATA = b"data: "


class RefusedError(click.ClickException):
    """The gateway refused a request; `code` is its reason."""

    def __init__(self, address: GatewayAddress, status: int, body: Any) -> None:
        hint = f" {address.secret_hint}" if status == _UNAUTHORIZED else ""
        super().__init__(f"{error_message(body)}{hint}")
        self.code = error_code(body)
        self.is_temporary = status >= _SERVER_ERROR


def iter_events(address: GatewayAddress, path: str, after: int) -> Iterator[dict[str, Any]]:
    """Yield the events of the run at `path` behind number `after`, to its end.

    Raises `Unreachable` if the first connection fails, and `RefusedError`.
    """
    pause, was_connected = _FIRST_PAUSE_SECONDS, False
    while True:
        stream = _EventStream(address, path, after)
        try:
            for event in stream:
                after, pause, was_connected = event["sequence_number"], _FIRST_PAUSE_SECONDS, True
                yield event
            if stream.is_over:
                return
            problem, was_connected = "The stream was interrupted.", True
        except (Unreachable, RefusedError) as error:
            if not was_connected or (isinstance(error, RefusedError) and not error.is_temporary):
                raise
            problem = error.message
        note(f"{problem} Connecting again.")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


class _EventStream:
    """One connection's events. `is_over` is set once the run has ended and all of them were there."""

    def __init__(self, address: GatewayAddress, path: str, after: int) -> None:
        self._address = address
        self._path = path
        self._after = after
        self.is_over = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield events until the connection ends. Raises `Unreachable` and `RefusedError`."""
        address = self._address
        headers = {**request_headers(address.secret), "Last-Event-ID": str(self._after)}
        with connect(address.url, _SILENCE_SECONDS) as connection:
            connection.request("GET", f"{urlsplit(address.url).path}{self._path}/events", headers=headers)
            response = connection.getresponse()
            if response.status == _NO_CONTENT:
                self.is_over = True
            elif response.status != _OK:
                raise RefusedError(address, response.status, decode(response.read(_MAX_REFUSAL_BYTES)))
            else:
                yield from self._read(response)

    def _read(self, response: HTTPResponse) -> Iterator[dict[str, Any]]:
        for line in response:
            if line.startswith(_DATA) and line.endswith(b"\n"):
                event = json.loads(line.removeprefix(_DATA))
                self.is_over = event["type"] == "run.ended"
                yield event
