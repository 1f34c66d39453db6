"""An authenticated WebSocket connection of a command to the gateway."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from service import __version__
from service.api.websocket.frames import MAX_PAYLOAD_BYTES, PROTOCOL
from service.cli.client.address import GatewayAddress
from service.cli.client.http import UNREACHABLE, decode, error_message
from service.core.errors import KINDS

_CONNECT_SECONDS = 10.0
_CLOSE_SECONDS = 2.0
_LIMIT = f"{MAX_PAYLOAD_BYTES // 2**20} MiB"

#: Long enough for a gateway that is very busy or whose host was suspended.
_PONG_SECONDS = 60.0


class UnreachableError(click.ClickException):
    """No gateway answers, or the connection was lost."""

    code = UNREACHABLE


class RefusedRequestError(click.ClickException):
    """The gateway refused a request; `detail` is the protocol's detailed code, `code` the gateway's, as over HTTP."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail
        by_token = detail.replace("AUTH_PASSWORD_", "AUTH_TOKEN_")  # one code for both modes
        self.code = next((code for code, kind in KINDS.items() if kind.detail == by_token), detail.lower()) or None


class OperatorConnection:
    """A connection. `deadline`, a time of `time.monotonic`, limits every wait."""

    def __init__(self, connection: ClientConnection, deadline: float | None) -> None:
        self._connection = connection
        self._ids = (f"r{number}" for number in itertools.count(1))
        self.deadline = deadline

    def send(self, method: str, params: dict[str, Any]) -> str:
        """Send a request and return its id. Raises `RefusedRequestError` for one that no gateway would take."""
        request_id = next(self._ids)
        frame = json.dumps({"type": "req", "id": request_id, "method": method, "params": params})
        if len(frame) > MAX_PAYLOAD_BYTES:
            text = f"The message is too large: {len(frame) / 2**20:.1f} MiB as sent, and {_LIMIT} is the limit."
            raise RefusedRequestError(text, "REQUEST_TOO_LARGE")
        self._connection.send(frame)
        return request_id

    def receive(self) -> dict[str, Any]:
        """Return the next frame. Raises `TimeoutError` after the deadline."""
        seconds = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
        frame = decode(self._connection.recv(seconds, decode=False))
        if not isinstance(frame, dict):
            raise UnreachableError("The server at this address is not a gateway.")
        return frame

    def wait_for(self, request_id: str) -> Any:
        """Return the payload of the next response to a request and drop other frames. Raises its error."""
        while True:
            frame = self.receive()
            if frame.get("type") == "res" and frame.get("id") == request_id:
                return payload_of(frame)


def payload_of(response: dict[str, Any]) -> Any:
    """Return the payload of a response. Raises `RefusedRequestError` for an error."""
    if not response.get("ok"):
        details = response["error"].get("details") if isinstance(response.get("error"), dict) else None
        code = details.get("code") if isinstance(details, dict) else None
        raise RefusedRequestError(error_message(response), str(code or ""))
    return response.get("payload")


@contextmanager
def open_operator(address: GatewayAddress, deadline: float | None = None) -> Iterator[OperatorConnection]:
    """Connect to the gateway as an operator that may run agents and receives their events.

    Raises `RefusedRequestError`, `TimeoutError` after the deadline, and `UnreachableError`, also for errors inside the
    block.
    """
    url = f"ws{address.url.removeprefix('http')}/"
    left = _CONNECT_SECONDS if deadline is None else min(_CONNECT_SECONDS, deadline - time.monotonic())
    opened = False
    try:
        with connect(
            url,
            compression=None,
            proxy=None,  # direct, like the other commands
            open_timeout=max(0.001, left),
            close_timeout=_CLOSE_SECONDS,
            ping_timeout=_PONG_SECONDS,
            max_size=None,  # answers are not limited
        ) as socket:
            opened = True
            connection = OperatorConnection(socket, deadline)
            _handshake(connection, address)
            yield connection
    except InvalidStatus as error:
        raise UnreachableError(_refusal_of(url, error)) from None
    except ConnectionClosed as error:
        reason = f" ({error.rcvd.reason})" if error.rcvd is not None and error.rcvd.reason else ""
        raise UnreachableError(f"The connection to {url} was lost{reason}.") from None
    except TimeoutError:
        if opened or (deadline is not None and time.monotonic() >= deadline):
            raise
        raise UnreachableError(f"{url} did not answer within {_CONNECT_SECONDS:g} s.") from None
    except (OSError, InvalidHandshake, WebSocketException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnreachableError(f"{url} does not answer: {reason}.") from None


def _handshake(connection: OperatorConnection, address: GatewayAddress) -> None:
    params: dict[str, Any] = {
        "minProtocol": PROTOCOL,
        "maxProtocol": PROTOCOL,
        "client": {"id": "cli", "version": __version__, "platform": "linux", "mode": "cli"},
        "caps": ["tool-events"],
        "role": "operator",
        "scopes": ["operator.write"],
    }
    if address.secret:  # the gateway uses the one of its mode
        params["auth"] = {"token": address.secret, "password": address.secret}
    connection.receive()  # its challenge, used only by signing clients
    try:
        connection.wait_for(connection.send("connect", params))
    except RefusedRequestError as refusal:
        text = f"{refusal.message} The address and its secret are from {address.origin}."
        if refusal.detail.endswith(("_MISSING", "_MISMATCH")) and refusal.detail.startswith("AUTH_"):
            text = f"{text} {address.secret_hint}"
        raise RefusedRequestError(text, refusal.detail) from None


def _refusal_of(url: str, error: InvalidStatus) -> str:
    body = decode(bytes(error.response.body or b""))
    if isinstance(body, dict) and "error" in body:
        return f"No gateway's WebSocket at {url}: {error_message(body)}"
    return f"The server at {url} is not a gateway."
