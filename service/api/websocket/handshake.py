"""The handshake: challenge, the client's `connect`, and `hello-ok` or a close frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from service import __version__
from service.api.auth import KEY_PREFIX, Authenticator
from service.api.http.deferred_schema import DeferredSchema
from service.api.settings import SettingsSlot
from service.api.websocket.client import ADMIN, APPROVALS, READ, SCOPES, WRITE, ConnectedClient, includes
from service.api.websocket.connection import MAX_BUFFERED_BYTES, WebSocket
from service.api.websocket.frames import (
    MAX_HANDSHAKE_BYTES,
    MAX_PAYLOAD_BYTES,
    PROTOCOL,
    FrameError,
    Request,
    parse_request,
    to_event,
    to_failure,
)
from service.core.concurrency import Deadline, deadline
from service.core.dataclass import record
from service.core.errors import GatewayError
from service.core.principal import ADMINISTRATOR, Principal, Scope
from service.gateway.gateway import Gateway
from service.storage.sessions.keys import key_prefix

HANDSHAKE_SECONDS = 10.0

EVENTS = (
    *("connect.challenge", "agent", "chat", "sessions.changed", "exec.approval.requested", "exec.approval.resolved"),
    *("tick", "shutdown"),
)

#: RFC 6455 close codes: policy violation, protocol error, invalid payload.
POLICY, PROTOCOL_ERROR, NOT_UTF8 = 1008, 1002, 1007

_TEXT = {"type": "string", "minLength": 1, "maxLength": 256}
_LIST = {"type": "array", "maxItems": 256, "items": _TEXT}
_SECRET = {"type": "string", "maxLength": 8192}
#: The parameters of `connect`.
CONNECT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["minProtocol", "maxProtocol", "client"],
    "properties": {
        "minProtocol": {"type": "integer", "minimum": 1},
        "maxProtocol": {"type": "integer", "minimum": 1},
        "client": {
            "type": "object",
            "required": ["id", "version", "platform", "mode"],
            "properties": {"id": _TEXT, "version": _TEXT, "platform": _TEXT, "mode": _TEXT},
        },
        "caps": _LIST,
        "scopes": _LIST,
        "role": {"type": "string", "enum": ["operator"]},
        "auth": {"type": "object", "properties": {"token": _SECRET, "password": _SECRET}},
    },
}
_CONNECT = DeferredSchema(CONNECT_SCHEMA, {"components": {"schemas": {}}})


class RefusedError(Exception):
    """The handshake failed: close code and reason; the error response has been sent."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@record
class Handshake:
    """The opening handshake; `tick_seconds` is the announced interval of ticks."""

    gateway: Gateway
    settings: SettingsSlot
    methods: tuple[str, ...]
    tick_seconds: float
    clock: Callable[[], float]
    new_id: Callable[[], str]
    handshake_seconds: float = HANDSHAKE_SECONDS

    def perform(
        self, socket: WebSocket, address: str, user: Principal | None = None
    ) -> tuple[ConnectedClient, str] | None:
        """Return the authenticated client and the id of its request; `None` if it disconnects.

        `user` was named by a trusted proxy; an API key that the client sends is used instead.

        `welcome` sends the response. Raises `RefusedError` after the reason was sent to the client.
        """
        socket.limit_messages(MAX_HANDSHAKE_BYTES)
        challenge = {"nonce": self.new_id(), "ts": int(self.clock() * 1000)}
        socket.send(to_event("connect.challenge", orjson.dumps(challenge)))
        try:
            with deadline(self.handshake_seconds):
                message, hold = next(socket.messages(), (b"", None))
        except Deadline:
            raise RefusedError(POLICY, "connect was not received in time") from None
        if hold is not None:
            hold.release()
        if message == b"" and not socket.is_open:
            return None
        request = _parse_connect(socket, message)
        try:
            client = self._admit(request, socket, address, user)
        except GatewayError as error:
            socket.send(to_failure(request.id, error))
            code = PROTOCOL_ERROR if error.code == "protocol_mismatch" else POLICY
            raise RefusedError(code, error.message) from None
        socket.limit_messages(MAX_PAYLOAD_BYTES)
        return client, request.id

    def welcome(self, client: ConnectedClient, request_id: str) -> None:
        """Send `hello-ok` with the gateway's features to an authenticated client."""
        policy = {
            "maxPayload": MAX_PAYLOAD_BYTES,
            "maxBufferedBytes": MAX_BUFFERED_BYTES,
            "tickIntervalMs": int(self.tick_seconds * 1000),
        }
        hello = {
            "type": "hello-ok",
            "protocol": PROTOCOL,
            "server": {"version": __version__, "connId": client.id},
            "features": {"methods": list(self.methods), "events": list(EVENTS)},
            "snapshot": self._snapshot(client.principal),
            "auth": {"role": "operator", "scopes": [scope for scope in SCOPES if scope in client.scopes]},
            "policy": policy,
        }
        client.respond(request_id, hello)

    def _snapshot(self, principal: Principal) -> dict[str, Any]:
        now, default = self.clock(), self.gateway.roster.of(principal).default.id
        authenticator = self.settings.current.authenticator
        return {
            "presence": [],
            "health": {"ok": True, "ts": int(now * 1000)},
            "stateVersion": {"presence": 0, "health": 0},
            "uptimeMs": max(0, int((now - self.gateway.started_at) * 1000)),
            "sessionDefaults": {
                "defaultAgentId": default,
                "mainKey": "main",
                "mainSessionKey": f"{key_prefix(default, principal.owner)}main",
                "scope": "per-sender",
            },
            "authMode": authenticator.mode if authenticator else "none",
        }

    def _admit(self, request: Request, socket: WebSocket, address: str, user: Principal | None) -> ConnectedClient:
        params = request.params
        _CONNECT.compiled.check(params, subject="The parameters of connect")
        _check_protocol(params)
        authenticator = self.settings.current.authenticator
        principal = ADMINISTRATOR
        if authenticator is not None:
            auth = params.get("auth", {})
            is_key = auth.get("token", "").encode().startswith(KEY_PREFIX)
            principal = user if user and not is_key else self._check_secret(authenticator, auth, address)
        _ = self.gateway.roster.of(principal).default  # there is one
        scopes = _granted([scope for scope in params.get("scopes", ()) if scope in SCOPES], principal)
        caps, name = params.get("caps", ()), params["client"]["id"]
        return ConnectedClient(self.new_id(), socket, scopes, caps, name, principal)

    def _check_secret(self, authenticator: Authenticator, auth: Mapping[str, str], address: str) -> Principal:
        mode = authenticator.mode
        missing = f"The {mode} of this gateway is missing. Send it as `auth.{mode}` with `connect`."
        if mode == "trusted-proxy":
            mode, missing = "token", "No trusted proxy names a user. Log in there, or send an API key as `auth.token`."
        secret = auth.get(mode, "") or auth.get("token", "")  # a named key is a token in every mode
        try:
            return authenticator.check_secret(secret.encode(), address, f"auth.{mode}", missing)
        except GatewayError as error:
            if error.kind.detail and mode == "password":
                error.details["code"] = error.kind.detail.replace("TOKEN", "PASSWORD")
            raise


def _granted(wanted: Sequence[str], principal: Principal) -> Sequence[str]:
    """Return the scopes of a connection: those it asks for, directly or in a wider one, as far as its key has them."""
    if principal.key_id is None and principal.owner is None:
        return wanted
    permitted = {READ: Scope.READ, WRITE: Scope.WRITE, APPROVALS: Scope.ADMIN, ADMIN: Scope.ADMIN}
    return [one for one in SCOPES if permitted[one] in principal.scopes and includes(wanted, one)]


def _check_protocol(params: Mapping[str, Any]) -> None:
    if not params["minProtocol"] <= PROTOCOL <= params["maxProtocol"]:
        text = f"protocol mismatch: this gateway supports protocol {PROTOCOL}. Update the client or the gateway."
        details = {"expectedProtocol": PROTOCOL, "clientMinProtocol": params["minProtocol"]}
        raise GatewayError("protocol_mismatch", text, details={**details, "clientMaxProtocol": params["maxProtocol"]})


def _parse_connect(socket: WebSocket, message: bytes | None) -> Request:
    try:
        request = parse_request(message)
    except FrameError as fault:
        socket.send(to_failure(fault.id, fault.error))
        raise RefusedError(POLICY, fault.error.message) from None
    if request.method != "connect":
        error = GatewayError("malformed_request", "invalid handshake: the first request must be `connect`.")
        socket.send(to_failure(request.id, error))
        raise RefusedError(POLICY, error.message)
    return request
