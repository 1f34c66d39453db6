"""The HTTP and WebSocket applications of a gateway on one port, and the settings they read."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import flask

from service.api.auth import Authenticator, Credentials
from service.api.http.app import create_app
from service.api.http.contract import load_contract, to_bound_contract
from service.api.http.cross_origin import CrossOrigin
from service.api.http.published_contract import PublishedContract
from service.api.http.run_response import to_run
from service.api.login_limiter import SharedLoginLimiter
from service.api.settings import ApiSettings, SettingsSlot
from service.api.traces import are_on, open_traces
from service.api.websocket.app import WebSocketApp
from service.api.websocket.approval_feed import ApprovalFeed
from service.api.websocket.broadcaster import Broadcaster
from service.api.websocket.dispatch import MethodContext, Methods
from service.api.websocket.handshake import Handshake
from service.api.websocket.hub import Hub, HubLimits
from service.api.websocket.methods import ROWS
from service.api.websocket.peer_runs import PeerRunFeed
from service.config.diagnostics import DiagnosticsConfig
from service.config.redaction import describe_config
from service.config.schema import Config
from service.core.dataclass import record
from service.core.ids import new_uuid
from service.core.principal import Principal
from service.core.signals import open_streams
from service.gateway.gateway import Gateway
from service.storage.cluster.login_failures import LoginFailures
from service.storage.runs.records import RunState


@record
class Apps:
    """The application in front, whose `extensions["websocket_hub"]` is the WebSocket hub, and the settings in force."""

    app: flask.Flask
    gateway: Gateway
    settings: SettingsSlot

    def apply(self, config: Config, credentials: Credentials) -> None:
        """Put another configuration in force from the next request on, and disconnect clients of an earlier secret.

        Raises `ValueError` for a change from or to authentication mode "none", which needs a restart.
        """
        before = self.settings.current.authenticator
        after = before and before.updated(credentials, config.gateway.auth.rate_limit)
        self.settings.current = ApiSettings.build(config, after)
        switch_metrics(self.app, self.gateway, is_on=config.gateway.http.endpoints.metrics.enabled)
        if before and after and not after.has_same_secret(before):
            self.app.extensions["websocket_hub"].dismiss("the credentials have changed")
        switch_traces(self.app, config.diagnostics)  # last: sending what waits takes a moment


def open_apps(config: Config, credentials: Credentials, gateway: Gateway, config_path: Path | None = None) -> Apps:
    """Create the applications of `gateway`; `config_path` is shown to clients that ask for the configuration."""
    authenticated = credentials.mode != "none"
    failures, others = LoginFailures(gateway.storage.database), gateway.storage.membership
    limiter = SharedLoginLimiter(
        config.gateway.auth.rate_limit, failures, has_peers=lambda: others.has_peers, clock=time.time
    )
    authenticator = Authenticator(credentials, limiter, gateway.storage.api_keys) if authenticated else None
    settings = SettingsSlot(ApiSettings.build(config, authenticator))
    contract = load_contract(authenticated=authenticated)
    document = to_bound_contract(contract)
    app = create_app(gateway, document, PublishedContract(contract), settings)
    # Replacing `wsgi_app` is Flask's documented way to wrap an application.
    app.wsgi_app = CrossOrigin(app.wsgi_app, document, settings)  # type: ignore[method-assign]
    add_websocket_app(app, gateway, settings, lambda: describe_config(settings.current.config, config_path))
    switch_metrics(app, gateway, is_on=config.gateway.http.endpoints.metrics.enabled)
    switch_traces(app, config.diagnostics)
    gateway.webhooks.start(to_run)
    gateway.storage.membership.report_interrupted()
    return Apps(app, gateway, settings)


def switch_metrics(app: flask.Flask, gateway: Gateway, *, is_on: bool) -> None:
    """Begin or end to count for `/metrics`; the library for it is imported only then."""
    metrics = app.extensions.get("metrics")
    if is_on and metrics is None:
        from service.api.metrics.exporter import Metrics  # noqa: PLC0415

        metrics = app.extensions["metrics"] = Metrics(partial(_read_figures, gateway, app.extensions["websocket_hub"]))
        metrics.connect()
    elif metrics is not None and not is_on:
        metrics.disconnect()
        del app.extensions["metrics"]


def switch_traces(app: flask.Flask, config: DiagnosticsConfig | None) -> None:
    """Begin or end to send traces as `config` says, `None` for not at all; the library is imported only for them."""
    is_on = config is not None and are_on(config, os.environ)
    before = app.extensions.get("traces")
    if before is not None and not (is_on and config is not None and before.config == config.otel):
        del app.extensions["traces"]
        before.close()
    if is_on and config is not None and "traces" not in app.extensions:
        app.extensions["traces"] = open_traces(config, os.environ)


def _read_figures(gateway: Gateway, hub: Hub) -> Mapping[tuple[str, tuple[str, ...]], float]:
    """Return the values of the gauges (`service.api.metrics.gauges.GAUGES`)."""
    active = Counter(run.state for run in gateway.runs.active() if not run.is_replay)
    states = {"queued": RunState.QUEUED, "running": RunState.RUNNING, "waiting": RunState.WAITING}
    runs = {("openclaw_runs", (name,)): float(active[state]) for name, state in states.items()}
    return runs | {
        ("openclaw_http_streams", ()): open_streams.value,
        ("openclaw_websocket_connections", ()): len(hub),
        ("openclaw_in_flight_bytes", ()): gateway.budget.used_bytes,
        ("openclaw_in_flight_limit_bytes", ()): gateway.budget.limit_bytes,
        ("openclaw_in_flight_fullest_ratio", ()): gateway.budget.used_bytes / gateway.budget.limit_bytes,
    }


def add_websocket_app(
    app: flask.Flask, gateway: Gateway, settings: SettingsSlot, describe: Callable[[], dict[str, Any]]
) -> None:
    """Accept WebSockets in front of `app`; `describe` returns the configuration without its secrets."""
    clock = time.time
    limits = HubLimits()
    hub = Hub(limits, clock)
    broadcasts = Broadcaster(hub, clock)

    def renew(principal: Principal) -> Principal | None:
        return settings.current.renew(principal)

    methods = Methods(MethodContext(gateway, hub, broadcasts, describe, clock, renew), ROWS)
    handshake = Handshake(gateway, settings, tuple(methods.names), limits.tick_seconds, clock, new_uuid)
    gateway.runs.subscribe(broadcasts)
    feed = ApprovalFeed(hub, gateway.storage.approvals)
    peer_runs = PeerRunFeed(gateway, hub, broadcasts, clock)

    def refresh() -> None:
        hub.dismiss("the API key has expired or was revoked, or the user is not allowed", renew)
        feed.refresh()
        peer_runs.refresh()

    gateway.storage.approvals.on_change, gateway.storage.approvals.on_check = feed.publish, refresh
    app.extensions["websocket_hub"] = hub
    app.wsgi_app = WebSocketApp(  # type: ignore[method-assign]
        app.wsgi_app, hub=hub, handshake=handshake, methods=methods, settings=settings, budget=gateway.budget
    )
