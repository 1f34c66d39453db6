"""An authenticated client: its scopes, its capabilities and its connection."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from service.api.websocket.connection import WebSocket
from service.api.websocket.frames import to_event, to_failure, to_response
from service.core.errors import GatewayError
from service.core.principal import ADMINISTRATOR, Principal
from service.storage.sessions.keys import owner_of

READ, WRITE, ADMIN = "operator.read", "operator.write", "operator.admin"

#: Deciding about tool calls; no other scope but admin includes it.
APPROVALS = "operator.approvals"

#: Scopes that can be granted.
SCOPES = (ADMIN, APPROVALS, WRITE, READ)

#: Capability of clients that receive the events of agents' tools, too.
TOOL_EVENTS = "tool-events"


_WIDER = {READ: (READ, WRITE, ADMIN), WRITE: (WRITE, ADMIN)}


def includes(scopes: Collection[str], scope: str) -> bool:
    """Return True if `scope` is one of `scopes` or in a wider one: admin includes all, write includes read."""
    return any(one in scopes for one in _WIDER.get(scope, (scope, ADMIN)))


class ConnectedClient:
    """An operator's connection.

    `id` is the connection's, `scopes` are granted, `caps` the client's capabilities, `name` is the client's own.
    `principal` is who it is, `request_id` the id of the request that opened the connection.
    """

    request_id: str | None = None

    def __init__(
        self,
        client_id: str,
        socket: WebSocket,
        scopes: Iterable[str],
        caps: Iterable[str],
        name: str = "",
        principal: Principal = ADMINISTRATOR,
    ) -> None:
        self.principal = principal
        self.id = client_id
        self.name = name
        self.socket = socket
        self.scopes = frozenset(scopes)
        self.caps = frozenset(caps)
        self.follows_sessions = False
        self._sent_events = 0

    def has_scope(self, scope: str) -> bool:
        """Return True if `scope` was granted, directly or in a wider one."""
        return includes(self.scopes, scope)

    @property
    def may_read(self) -> bool:
        """True if the client may read sessions."""
        return self.has_scope(READ)

    def may_see(self, session_key: str) -> bool:
        """Return True if the session may be one that the client reads."""
        return self.may_read and (self.principal.owner is None or self.principal.may_see(owner_of(session_key)))

    def send_event(self, event: str, payload: bytes) -> None:
        """Send a numbered event; `payload` is encoded JSON."""
        self._sent_events += 1
        self.socket.send(to_event(event, payload, self._sent_events))

    def respond(self, request_id: str, payload: object) -> None:
        """Send a success response."""
        self.socket.send(to_response(request_id, payload))

    def fail(self, request_id: str, error: GatewayError, payload: object = None) -> None:
        """Send an error response."""
        self.socket.send(to_failure(request_id, error, payload))
