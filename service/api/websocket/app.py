"""WSGI application that serves WebSocket upgrades and passes all other requests on.

An upgrade is accepted on any path. Refusals have the order and the envelope of the HTTP API: a proxy's headers, a
foreign host, a foreign origin (403), a malformed handshake (400), too many connections (503).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from socket import SHUT_RDWR
from typing import Any

from service.api.client_address import check_host, check_origin
from service.api.http.http_response import error_response
from service.api.settings import ApiSettings, SettingsSlot
from service.api.websocket.client import ConnectedClient
from service.api.websocket.connection import MAX_BUFFERED_BYTES, WebSocket, accept_upgrade
from service.api.websocket.dispatch import Methods
from service.api.websocket.frames import NO_ID, FrameError, find_leading_id, is_utf8, parse_request
from service.api.websocket.handshake import NOT_UTF8, Handshake, RefusedError
from service.api.websocket.hub import Hub
from service.core.byte_budget import ByteBudget, Hold
from service.core.errors import GatewayError
from service.core.logs import access_entry, to_logfmt
from service.core.principal import Principal

logger = logging.getLogger("openclaw.websocket")

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]

ALLOWED_ORIGINS_KEY = "gateway.controlUi.allowedOrigins"

#: RFC 6455's registry of close codes.
TRY_AGAIN_LATER = 1013

#: Memory for a large message and what is made of it, until its request has ended.
MESSAGE_COPIES = 4

_UNCOUNTED_BYTES = 64 * 1024

#: Limit of unsent bytes of a connection that is not authenticated.
UNAUTHENTICATED_BUFFERED_BYTES = 64 * 1024

_ORIGIN = re.compile(r"https?://(?P<host>[^/?#]+)", re.IGNORECASE)


class WebSocketApp:
    """Takes WebSocket upgrades and serves their connections; other requests go to `application`."""

    def __init__(
        self,
        application: Application,
        *,
        hub: Hub,
        handshake: Handshake,
        methods: Methods,
        settings: SettingsSlot,
        budget: ByteBudget,
    ) -> None:
        self._application = application
        self._hub = hub
        self._handshake = handshake
        self._methods = methods
        self._settings = settings
        self._budget = budget

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """WSGI. Returns when the connection has ended."""
        if "HTTP_UPGRADE" not in environ or not _is_upgrade(environ):
            return self._application(environ, start_response)
        try:
            self._serve(environ, start_response)
        except GatewayError as error:
            return error_response(error)(environ, start_response)
        return []

    def _serve(self, environ: dict[str, Any], start_response: Any) -> None:
        settings = self._settings.current
        address = settings.addresses.check(environ.get("REMOTE_ADDR", ""), environ)
        access_entry(environ).client = address
        if settings.authenticator is None:
            check_host(environ.get("HTTP_HOST"))
        _check_origin(environ, settings)
        _check_bodiless(environ)
        user = settings.find_user(environ, settings.allowed_origins)
        headers = accept_upgrade(environ)
        connection = environ["openclaw.socket"]

        def evict() -> None:
            with suppress(OSError):
                connection.shutdown(SHUT_RDWR)

        with self._hub.reserve_slot(address, evict) as introduced:
            start_response("101 Switching Protocols", headers)(b"")
            socket = WebSocket(
                connection,
                early=environ["openclaw.early"],
                max_buffered_bytes=UNAUTHENTICATED_BUFFERED_BYTES,
                budget=self._budget,
            )
            try:
                self._serve_client(socket, environ, introduced, user)
            finally:
                socket.release()
                if socket.dropped is not None:
                    logger.warning("a connection of %s was dropped: %s", to_logfmt(address), socket.dropped)

    def _serve_client(
        self, socket: WebSocket, environ: dict[str, Any], introduced: Callable[[], None], user: Principal | None
    ) -> None:
        address = access_entry(environ).client or ""
        try:
            authenticated = self._handshake.perform(socket, address, user)
        except RefusedError as refusal:
            socket.close(refusal.code, str(refusal))
            authenticated = None
        if authenticated is not None:
            introduced()
            socket.limit_backlog(MAX_BUFFERED_BYTES)
            client, request_id = authenticated
            client.request_id = environ.get("openclaw.request_id")
            with self._hub.register(client):
                self._handshake.welcome(client, request_id)
                self._listen(client)
        socket.finish()

    def _listen(self, client: ConnectedClient) -> None:
        try:
            for message, hold in client.socket.messages():
                try:
                    if not client.socket.is_open:
                        return
                    self._take(client, message, hold)
                finally:
                    hold.release()
                    del message, hold  # or they would stay until the next message
        except GatewayError as error:  # no room for a message that is still arriving
            client.fail(NO_ID, error)
            client.socket.close(TRY_AGAIN_LATER, "too much data is in flight")
            client.socket.discard()

    def _take(self, client: ConnectedClient, message: bytes | None, hold: Hold) -> None:
        if message is not None and len(message) > _UNCOUNTED_BYTES:
            try:
                hold.take(len(message) * (MESSAGE_COPIES - 1))
            except GatewayError as error:
                client.fail(find_leading_id(message), error)
                return
        try:
            self._methods.dispatch(client, parse_request(message), hold)
        except FrameError as fault:
            if message is not None and fault.id == NO_ID and not is_utf8(message):
                client.socket.close(NOT_UTF8, "text must be UTF-8")
            else:
                client.fail(fault.id, fault.error)


def _is_upgrade(environ: Mapping[str, Any]) -> bool:
    upgrade = str(environ["HTTP_UPGRADE"]).lower()
    return environ.get("REQUEST_METHOD") == "GET" and "websocket" in [one.strip() for one in upgrade.split(",")]


def _check_origin(environ: Mapping[str, Any], settings: ApiSettings) -> None:
    origin = environ.get("HTTP_ORIGIN")
    if origin is None and settings.authenticator is None:
        check_origin(environ, settings.allowed_origins)
    if origin is None or origin.lower() in settings.allowed_origins or "*" in settings.allowed_origins:
        return
    match = _ORIGIN.fullmatch(origin)
    if match is not None and match["host"].lower() == environ.get("HTTP_HOST", "").lower():
        return
    text = (
        "A page of another origin may not connect to this gateway. "
        f"The operator can add the origin to {ALLOWED_ORIGINS_KEY}."
    )
    raise GatewayError("origin_not_allowed", text, param="origin")


def _check_bodiless(environ: Mapping[str, Any]) -> None:
    if environ.get("CONTENT_LENGTH", "0") != "0" or "HTTP_TRANSFER_ENCODING" in environ:
        raise GatewayError("malformed_request", "A WebSocket upgrade must not have a body.")
