"""A client that was let in: what it may do, what it wants to hear, and its end of the connection."""

from __future__ import annotations

from collections.abc import Iterable

from service.api.websocket.connection import WebSocket
from service.api.websocket.frames import to_event, to_failure, to_response
from service.core.errors import GatewayError

READ, WRITE, ADMIN = "operator.read", "operator.write", "operator.admin"

#: What may be asked for; others are granted to nobody.
SCOPES = (ADMIN, WRITE, READ)

#: A client that says so in `caps` is told of the agents' tools, too.
TOOL_EVENTS = "tool-events"


class ConnectedClient:
    """An operator's connection. `id` is the connection's; `scopes` are those granted, `caps` what the client can."""

    def __init__(self, peer_id: str, socket: WebSocket, scopes: Iterable[str], caps: Iterable[str]) -> None:
        self.id = peer_id
        self.socket = socket
        self.scopes = frozenset(scopes)
        self.caps = frozenset(caps)
        self.follows_sessions = False
        self._told = 0

    def has_scope(self, scope: str) -> bool:
        """Whether `scope` was granted, itself or in a wider one: admin holds all, write holds read."""
        wider = {READ: (READ, WRITE, ADMIN), WRITE: (WRITE, ADMIN)}.get(scope, (scope, ADMIN))
        return any(one in self.scopes for one in wider)

    @property
    def may_read(self) -> bool:
        """Whether it may know what is said in sessions."""
        return self.has_scope(READ)

    def tell(self, event: str, payload: bytes) -> None:
        """Send an event, numbered; its payload is JSON already."""
        self._told += 1
        self.socket.send(to_event(event, payload, self._told))

    def respond(self, request_id: str, payload: object) -> None:
        """Send a response that tells of success."""
        self.socket.send(to_response(request_id, payload))

    def fail(self, request_id: str, error: GatewayError, payload: object = None) -> None:
        """Send a response that tells of `error`."""
        self.socket.send(to_failure(request_id, error, payload))
