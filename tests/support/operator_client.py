"""An operator client: OpenClaw's protocol on a real WebSocket; every received frame is kept."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson
from websockets.sync.client import ClientConnection, connect

from support.live import TOKEN, LiveGateway

ALL_SCOPES = ("operator.admin",)
PATIENCE_SECONDS = 30.0


class OperatorClient:
    """One connection; `frames` is all that came, in order."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.frames: list[dict[str, Any]] = []
        self._ids = (f"r{number}" for number in itertools.count(1))

    def receive(self, seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
        """The next frame. Raises `TimeoutError`, or websockets' `ConnectionClosed`."""
        frame: dict[str, Any] = orjson.loads(self.connection.recv(seconds))
        self.frames.append(frame)
        return frame

    def receive_until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next frame that is `wanted`, whatever comes before it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not wanted(frame := self.receive(max(0.01, deadline - time.monotonic()))):
            pass
        return frame

    def send(self, method: str, params: Any = None, *, request_id: str | None = None, **members: Any) -> str:
        """Send a request, with further `members`, and return its id."""
        request_id = request_id or next(self._ids)
        frame = {"type": "req", "id": request_id, "method": method, **members}
        if params is not None:
            frame["params"] = params
        self.connection.send(orjson.dumps(frame).decode())
        return request_id

    def response(self, request_id: str) -> dict[str, Any]:
        """The next response to a request."""
        return self.receive_until(lambda frame: frame["type"] == "res" and frame["id"] == request_id)

    def call(self, method: str, params: Any = None) -> Any:
        """Send a request and return the payload of its first response, which must be a success."""
        response = self.response(self.send(method, params))
        assert response["ok"], response
        return response["payload"]

    def refusal(self, method: str, params: Any = None) -> dict[str, Any]:
        """Send a request and return its error."""
        response = self.response(self.send(method, params))
        assert not response["ok"], response
        error: dict[str, Any] = response["error"]
        return error

    def run(self, message: str, key: str, **params: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Run an agent: both responses."""
        request_id = self.send("agent", {"message": message, "idempotencyKey": key, **params})
        return self.response(request_id), self.response(request_id)

    def event(self, name: str, **wanted: Any) -> dict[str, Any]:
        """The first event of this name whose payload has these values, come already or to come."""

        def is_it(frame: dict[str, Any]) -> bool:
            if frame["type"] != "event" or frame["event"] != name:
                return False
            return all(frame["payload"].get(key) == value for key, value in wanted.items())

        return next(filter(is_it, self.frames), None) or self.receive_until(is_it)


def connect_params(token: str | None = TOKEN, **changes: Any) -> dict[str, Any]:
    """Return the parameters of `connect`."""
    params: dict[str, Any] = {
        "minProtocol": 4,
        "maxProtocol": 4,
        "client": {"id": "test", "version": "1", "platform": "linux", "mode": "test"},
        "caps": [],
        "role": "operator",
        "scopes": list(ALL_SCOPES),
    }
    if token is not None:
        params["auth"] = {"token": token}
    return {**params, **changes}


@contextmanager
def raw_client(
    gateway: LiveGateway, path: str = "/", headers: Mapping[str, str] | None = None, **options: Any
) -> Iterator[OperatorClient]:
    """A WebSocket that has not said who it is."""
    host, port = gateway.address
    options.setdefault("max_size", None)
    options.setdefault("ping_interval", None)  # pings would change the random numbers of Hypothesis
    uri = f"ws://{host}:{port}{path}"
    with connect(uri, compression=None, additional_headers=headers, proxy=None, **options) as connection:
        yield OperatorClient(connection)


@contextmanager
def operator_client(gateway: LiveGateway, **changes: Any) -> Iterator[OperatorClient]:
    """A WebSocket that was let in; `changes` are those of `connect`'s parameters."""
    with raw_client(gateway) as client:
        assert client.receive()["event"] == "connect.challenge"
        assert client.call("connect", connect_params(**changes))["type"] == "hello-ok"
        yield client
