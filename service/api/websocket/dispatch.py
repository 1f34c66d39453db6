"""Methods of the protocol and their dispatch: name, required scope, parameter schema, function."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from service.api.http.schema_validation import CompiledSchema
from service.api.websocket.agent_request import in_protocol_terms
from service.api.websocket.broadcaster import Broadcaster
from service.api.websocket.client import ConnectedClient
from service.api.websocket.frames import Request
from service.api.websocket.hub import Hub
from service.core.byte_budget import Hold
from service.core.concurrency import spawn
from service.core.dataclass import record
from service.core.errors import GatewayError, internal_error
from service.gateway.gateway import Gateway

logger = logging.getLogger("openclaw.rpc")

T = TypeVar("T")

#: How many requests one connection may have going on.
MAX_REQUESTS = 256

_NO_COMPONENTS: dict[str, Any] = {"components": {"schemas": {}}}


@record
class MethodContext:
    """Dependencies of methods. `describe_config` returns the configuration without secrets, `clock` seconds."""

    gateway: Gateway
    hub: Hub
    broadcasts: Broadcaster
    describe_config: Callable[[], dict[str, Any]]
    clock: Callable[[], float]

    @property
    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return int(self.clock() * 1000)


class Call:
    """One request under way: `params` satisfy the method's schema, `hold` is the memory of its message."""

    def __init__(self, desk: MethodContext, peer: ConnectedClient, request: Request, hold: Hold) -> None:
        self.desk = desk
        self.peer = peer
        self.params = request.params
        self.hold = hold
        self._id = request.id

    def respond(self, payload: object) -> None:
        """Send a response now; what the method returns is one more."""
        self.peer.respond(self._id, payload)


class FailedWithPayload(Exception):  # noqa: N818 - it carries an answer
    """A failure whose response has a payload, too."""

    def __init__(self, error: GatewayError, payload: object) -> None:
        super().__init__(error.message)
        self.error = error
        self.payload = payload


class Method:
    """A row of the table.

    `function` returns the response's payload or raises `GatewayError`. `properties` are its parameters' schemas (as in
    the contract), `required` those that must be there; `ignored` are the protocol's other ones that change nothing
    here, and anything else is refused by name.
    """

    def __init__(
        self,
        name: str,
        scope: str,
        function: Callable[[Call], Any],
        properties: Mapping[str, Any] | None = None,
        required: Iterable[str] = (),
        ignored: Iterable[str] = (),
    ) -> None:
        self.name = name
        self.scope = scope
        self.function = function
        schema: dict[str, Any] = {"type": "object", "properties": dict(properties or {}), "required": list(required)}
        self._schema = CompiledSchema(schema, _NO_COMPONENTS)
        self._known = {*(properties or {}), *ignored}

    def check(self, peer: ConnectedClient, params: Mapping[str, Any]) -> None:
        """Return if `peer` may call this with `params`; else raise `GatewayError`."""
        if not peer.has_scope(self.scope):
            text = f"The method {self.name} needs the scope {self.scope}. Ask for it in `scopes` when connecting."
            details = {"missingScope": self.scope, "requiredScopes": [self.scope]}
            raise GatewayError("missing_scope", text, details=details)
        self._schema.check(params, subject="The parameters")
        unknown = next((name for name in params if name not in self._known), None)
        if unknown is not None:
            text = f"The method {self.name} does not have the parameter `{unknown[:64]}` here. Leave it out."
            raise GatewayError("unsupported_parameter", text, param=unknown[:64])


class Methods:
    """The table of methods, and the requests that are under way."""

    def __init__(self, desk: MethodContext, rows: Iterable[Method]) -> None:
        self._desk = desk
        self._rows = {row.name: row for row in rows}
        self._under_way: dict[str, int] = {}

    @property
    def names(self) -> list[str]:
        """Every method, in the order of the table."""
        return list(self._rows)

    def take(self, peer: ConnectedClient, request: Request, hold: Hold) -> None:
        """Carry `request` out beside the caller; its responses go to `peer`, at least one and one last."""
        under_way = self._under_way.get(peer.id, 0)
        if under_way >= MAX_REQUESTS:
            text = f"{MAX_REQUESTS} requests of this connection are under way. Wait for their responses."
            peer.fail(request.id, GatewayError("too_many_requests", text))
            return
        self._under_way[peer.id] = under_way + 1
        spawn(self._carry_out, peer, request, hold.share())

    def _find(self, name: str) -> Method:
        if name not in self._rows:
            raise GatewayError("unknown_method", f"unknown method: {name[:100]}", param="method")
        return self._rows[name]

    def _carry_out(self, peer: ConnectedClient, request: Request, hold: Hold) -> None:
        try:
            method = self._find(request.method)
            method.check(peer, request.params)
            payload = method.function(Call(self._desk, peer, request, hold))
            peer.respond(request.id, payload)
        except GatewayError as error:
            peer.fail(request.id, in_protocol_terms(error, request.params))
        except FailedWithPayload as failure:
            peer.fail(request.id, failure.error, failure.payload)
        except Exception:
            # The boundary of a request: an unexpected exception is logged and returned as an internal error.
            logger.exception("the method %s failed", request.method[:100])
            peer.fail(request.id, internal_error())
        finally:
            hold.release()
            self._under_way[peer.id] -= 1
            if not self._under_way[peer.id]:
                del self._under_way[peer.id]
