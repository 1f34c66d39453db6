"""Methods of the protocol and their dispatch: name, required scope, parameter schema, function."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from service.api.http.deferred_schema import DeferredSchema
from service.api.websocket.agent_request import in_protocol_terms
from service.api.websocket.broadcaster import Broadcaster
from service.api.websocket.client import ConnectedClient
from service.api.websocket.frames import Request
from service.api.websocket.hub import Hub
from service.core.byte_budget import Hold
from service.core.concurrency import spawn
from service.core.dataclass import record
from service.core.errors import GatewayError, internal_error
from service.core.principal import Principal
from service.gateway.gateway import Gateway

logger = logging.getLogger("openclaw.websocket")

T = TypeVar("T")

#: Limit of concurrent requests of one connection.
MAX_REQUESTS = 256

_NO_COMPONENTS: dict[str, Any] = {"components": {"schemas": {}}}


@record
class MethodContext:
    """Dependencies of methods.

    `describe_config` returns the configuration without secrets, `clock` seconds, `renew` a caller that was
    authenticated earlier as it is now, `None` if it is not any more.
    """

    gateway: Gateway
    hub: Hub
    broadcasts: Broadcaster
    describe_config: Callable[[], dict[str, Any]]
    clock: Callable[[], float]
    renew: Callable[[Principal], Principal | None]

    @property
    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return int(self.clock() * 1000)


class Call:
    """One request in progress: `params` satisfy the method's schema, `hold` is the memory of its message.

    `trace` are the caller's headers of W3C's Trace Context.
    """

    def __init__(self, context: MethodContext, client: ConnectedClient, request: Request, hold: Hold) -> None:
        self.context = context
        self.client = client
        self.params = request.params
        self.hold = hold
        self.trace = None if request.traceparent is None else {"traceparent": request.traceparent}
        self._id = request.id

    def respond(self, payload: object) -> None:
        """Send an interim response; the return value of the method is sent as another."""
        self.client.respond(self._id, payload)


class FailedWithPayload(Exception):  # noqa: N818 - it carries an answer
    """A failure whose response also has a payload."""

    def __init__(self, error: GatewayError, payload: object) -> None:
        super().__init__(error.message)
        self.error = error
        self.payload = payload


class Method:
    """A row of the table.

    `function` returns the response's payload or raises `GatewayError`. `properties` are the schemas of its parameters
    (as in the contract), `required` the mandatory ones; of `any_of` there must be one that is not empty. `ignored` are
    parameters of the protocol without effect here; all others are refused by name.
    """

    def __init__(
        self,
        name: str,
        scope: str,
        function: Callable[[Call], Any],
        properties: Mapping[str, Any] | None = None,
        required: Iterable[str] = (),
        ignored: Iterable[str] = (),
        any_of: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.scope = scope
        self.function = function
        checked: dict[str, Any] = {"type": "object", "properties": dict(properties or {}), "required": list(required)}
        self._schema = DeferredSchema(checked, _NO_COMPONENTS)
        fields = {**checked["properties"], **{field: {} for field in ignored}}
        #: What a client may send; unknown parameters are refused.
        self.schema: Mapping[str, Any] = checked | {"properties": fields, "additionalProperties": False}
        if any_of:
            self.schema |= {"anyOf": [{"required": [one], "properties": {one: {"minItems": 1}}} for one in any_of]}
        self._any_of = any_of
        self._known = {*(properties or {}), *ignored}

    @property
    def summary(self) -> str:
        """The purpose of the method in one sentence."""
        return (self.function.__doc__ or self.name).partition("\n")[0].replace("`", "")

    def check(self, client: ConnectedClient, params: Mapping[str, Any]) -> None:
        """Return if `client` may call this with `params`; else raise `GatewayError`."""
        if not client.has_scope(self.scope):
            text = f"The method {self.name} needs the scope {self.scope}. Ask for it in `scopes` when connecting."
            details = {"missingScope": self.scope, "requiredScopes": [self.scope]}
            raise GatewayError("missing_scope", text, details=details)
        self._schema.compiled.check(params, subject="The parameters")
        unknown = next((name for name in params if name not in self._known), None)
        if unknown is not None:
            text = f"The method {self.name} does not have the parameter `{unknown[:64]}` here. Leave it out."
            raise GatewayError("unsupported_parameter", text, param=unknown[:64])
        if self._any_of and not any(params.get(name) for name in self._any_of):
            text = f"The method {self.name} needs {' or '.join(f'`{name}`' for name in self._any_of)}."
            raise GatewayError("missing_required_parameter", text, param=self._any_of[0])


class Methods:
    """The table of methods, and the number of requests in progress per connection."""

    def __init__(self, context: MethodContext, rows: Iterable[Method]) -> None:
        self._context = context
        self._rows = {row.name: row for row in rows}
        self._in_progress: dict[str, int] = {}

    @property
    def names(self) -> list[str]:
        """Every method, in the order of the table."""
        return list(self._rows)

    def dispatch(self, client: ConnectedClient, request: Request, hold: Hold) -> None:
        """Execute `request` in a greenlet, which sends its responses to `client`. Does not block."""
        in_progress = self._in_progress.get(client.id, 0)
        if in_progress >= MAX_REQUESTS:
            text = f"{MAX_REQUESTS} requests of this connection are in progress. Wait for their responses."
            client.fail(request.id, GatewayError("too_many_requests", text))
            return
        self._in_progress[client.id] = in_progress + 1
        spawn(self._execute, client, request, hold.share())

    def _renew(self, client: ConnectedClient) -> None:
        """Let what a caller may do now apply to its connection."""
        if not (client.principal.key_id or client.principal.owner):
            return
        renewed = self._context.renew(client.principal)
        if renewed is None:
            text = "This API key has expired or was revoked, or this user is not allowed any more."
            raise GatewayError("invalid_api_key", text)
        client.principal = renewed

    def _find(self, name: str) -> Method:
        if name not in self._rows:
            raise GatewayError("unknown_method", f"unknown method: {name[:100]}", param="method")
        return self._rows[name]

    def _execute(self, client: ConnectedClient, request: Request, hold: Hold) -> None:
        try:
            self._renew(client)
            method = self._find(request.method)
            method.check(client, request.params)
            payload = method.function(Call(self._context, client, request, hold))
            client.respond(request.id, payload)
        except GatewayError as error:
            client.fail(request.id, in_protocol_terms(error, request.params))
        except FailedWithPayload as failure:
            client.fail(request.id, failure.error, failure.payload)
        except Exception:
            # The boundary of a request: an unexpected exception is logged and returned as an internal error.
            logger.exception("the method %s failed", request.method[:100])
            client.fail(request.id, internal_error())
        finally:
            hold.release()
            self._in_progress[client.id] -= 1
            if not self._in_progress[client.id]:
                del self._in_progress[client.id]
