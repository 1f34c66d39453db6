"""A gateway's WebSocket as a command uses it: one connection that was let in, requests on it, what comes back."""

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
from service.api.websocket.frames import PROTOCOL
from service.cli.gateway_address import Address
from service.cli.http_client import decode, error_message

_CONNECT_SECONDS = 10.0
_CLOSE_SECONDS = 2.0

#: A gateway whose host was suspended, or that is very busy, is not taken for dead at once.
_PONG_SECONDS = 60.0


class UnreachableError(click.ClickException):
    """No gateway answers at an address, or it does no longer."""


class RefusedRequestError(click.ClickException):
    """The gateway said no, in its own words; `code` is its finer one, empty without."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class OperatorConnection:
    """One connection. `deadline`, a time of `time.monotonic`, bounds every wait."""

    def __init__(self, connection: ClientConnection, deadline: float | None) -> None:
        self._connection = connection
        self._ids = (f"r{number}" for number in itertools.count(1))
        self.deadline = deadline

    def send(self, method: str, params: dict[str, Any]) -> str:
        """Send a request; returns the id that its responses have."""
        request_id = next(self._ids)
        self._connection.send(json.dumps({"type": "req", "id": request_id, "method": method, "params": params}))
        return request_id

    def receive(self) -> dict[str, Any]:
        """The next frame. Raises `TimeoutError` past the deadline."""
        seconds = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
        frame = decode(self._connection.recv(seconds, decode=False))
        if not isinstance(frame, dict):
            raise UnreachableError("What answers there is not a gateway.")
        return frame

    def wait_for(self, request_id: str) -> Any:
        """The payload of the next response to a request; what else comes is dropped. Raises what the gateway says."""
        while True:
            frame = self.receive()
            if frame.get("type") == "res" and frame.get("id") == request_id:
                return payload_of(frame)


def payload_of(response: dict[str, Any]) -> Any:
    """What a response carries. Raises `RefusedRequestError` with its error's words."""
    if not response.get("ok"):
        details = response["error"].get("details") if isinstance(response.get("error"), dict) else None
        code = details.get("code") if isinstance(details, dict) else None
        raise RefusedRequestError(error_message(response), str(code or ""))
    return response.get("payload")


@contextmanager
def open_operator(address: Address, deadline: float | None = None) -> Iterator[OperatorConnection]:
    """A connection to the gateway, which may run agents and is told what happens, their tools included.

    Raises `RefusedRequestError`, `TimeoutError` past the deadline, and `UnreachableError`, also for what goes wrong
    inside the block.
    """
    url = f"ws{address.url.removeprefix('http')}/"
    left = _CONNECT_SECONDS if deadline is None else min(_CONNECT_SECONDS, deadline - time.monotonic())
    opened = False
    try:
        with connect(
            url,
            compression=None,
            proxy=None,  # as the other commands: straight to the gateway
            open_timeout=max(0.001, left),
            close_timeout=_CLOSE_SECONDS,
            ping_timeout=_PONG_SECONDS,
            max_size=None,  # an answer is as long as it is
        ) as socket:
            opened = True
            connection = OperatorConnection(socket, deadline)
            _introduce(connection, address)
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


def _introduce(connection: OperatorConnection, address: Address) -> None:
    params: dict[str, Any] = {
        "minProtocol": PROTOCOL,
        "maxProtocol": PROTOCOL,
        "client": {"id": "cli", "version": __version__, "platform": "linux", "mode": "cli"},
        "caps": ["tool-events"],
        "role": "operator",
        "scopes": ["operator.write"],
    }
    if address.secret:  # which of the two it is, the gateway knows
        params["auth"] = {"token": address.secret, "password": address.secret}
    connection.receive()  # its challenge, which concerns clients that sign
    try:
        connection.wait_for(connection.send("connect", params))
    except RefusedRequestError as refusal:
        text = f"{refusal.message} The address and its secret are from {address.origin}."
        if refusal.code.endswith(("_MISSING", "_MISMATCH")) and refusal.code.startswith("AUTH_"):
            text = f"{text} {address.secret_hint}"
        raise RefusedRequestError(text, refusal.code) from None


def _refusal_of(url: str, error: InvalidStatus) -> str:
    body = decode(bytes(error.response.body or b""))
    if isinstance(body, dict) and "error" in body:
        return f"No gateway's WebSocket at {url}: {error_message(body)}"
    return f"What answers at {url} is not a gateway."
