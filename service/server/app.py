"""The doors to a Gateway, HTTP and WebSocket on one port, as the configuration wants them and wants them later on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flask

from service.api.auth import Authenticator, Credentials
from service.api.client_address import ClientAddresses
from service.api.http.app import HttpSettings, create_app
from service.api.http.contract import load_contract
from service.api.login_limiter import SharedLoginLimiter
from service.api.websocket.app import WebSocketApp
from service.api.websocket.broadcaster import Broadcaster
from service.api.websocket.dispatch import MethodContext, Methods
from service.api.websocket.handshake import Handshake
from service.api.websocket.hub import Hub, HubLimits
from service.api.websocket.methods import ROWS
from service.api.websocket.starts import Starts
from service.config.redaction import describe_config
from service.config.schema import Config
from service.core.dataclass import record
from service.core.ids import new_uuid
from service.gateway.gateway import Gateway
from service.storage.cluster.login_failures import LoginFailures


class Shown:
    """What is told of the configuration in force: everything but its secrets."""

    def __init__(self, config: Config, path: Path | None) -> None:
        self.config = config
        self._path = path

    def describe(self) -> dict[str, Any]:
        """See `describe_config`."""
        return describe_config(self.config, self._path)


@record
class Apps:
    """Both doors; `app` is the application in front, whose `extensions["rpc"]` is the hub of the WebSockets."""

    app: flask.Flask
    http: HttpSettings
    rpc: WebSocketApp
    shown: Shown

    def reconfigure(self, config: Config, credentials: Credentials) -> None:
        """Follow another configuration from the next request on; whether there is authentication stays."""
        authenticator = self.http.authenticator
        if authenticator is not None and authenticator.reconfigure(credentials, config.gateway.auth.rate_limit):
            self.app.extensions["rpc"].dismiss("the credentials have changed")
        self.http.addresses.reconfigure(config.gateway.trusted_proxies)
        self.http.completions_enabled = config.gateway.http.endpoints.chat_completions.enabled
        self.rpc.reconfigure(config.gateway.control_ui.allowed_origins)
        if config.session.maintenance != self.shown.config.session.maintenance:
            self.http.gateway.state.maintain(config.session.maintenance)
        self.shown.config = config


def open_apps(config: Config, credentials: Credentials, gateway: Gateway, config_path: Path | None = None) -> Apps:
    """The doors to `gateway`; WebSockets are let in beside HTTP."""
    authenticated = credentials.mode != "none"
    failures, others = LoginFailures(gateway.state.database), gateway.state.membership
    limiter = SharedLoginLimiter(
        config.gateway.auth.rate_limit, failures, has_others=lambda: others.has_others, clock=time.time
    )
    http = HttpSettings(
        gateway=gateway,
        document=load_contract(authenticated=authenticated),
        authenticator=Authenticator(credentials, limiter) if authenticated else None,
        addresses=ClientAddresses(config.gateway.trusted_proxies),
        completions_enabled=config.gateway.http.endpoints.chat_completions.enabled,
    )
    app, shown = create_app(http), Shown(config, config_path)
    return Apps(
        app, http, add_websocket_app(app, http, config.gateway.control_ui.allowed_origins, shown.describe), shown
    )


def add_websocket_app(
    app: flask.Flask, door: HttpSettings, allowed_origins: tuple[str, ...], describe: Callable[[], dict[str, Any]]
) -> WebSocketApp:
    """Let WebSockets in beside the HTTP door; `describe` gives the configuration without its secrets."""
    clock, gateway = time.time, door.gateway
    limits = HubLimits()
    hub = Hub(limits, clock)
    broadcasts = Broadcaster(hub, clock)
    methods = Methods(MethodContext(gateway, Starts(gateway, clock), hub, broadcasts, describe, clock), ROWS)
    greeter = Handshake(gateway, door.authenticator, tuple(methods.names), limits.tick_seconds, clock, new_uuid)
    gateway.runs.subscribe(broadcasts)
    app.extensions["rpc"] = hub
    rpc = WebSocketApp(
        app.wsgi_app,
        hub=hub,
        greeter=greeter,
        methods=methods,
        addresses=door.addresses,
        check_hosts=door.authenticator is None,
        allowed_origins=allowed_origins,
    )
    app.wsgi_app = rpc  # type: ignore[method-assign]  # Flask's own way to put something in front
    return rpc
