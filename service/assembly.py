"""The composition root: builds every part from the configuration and wires them together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import flask

from service.agents import Roster
from service.app import Door, create_app
from service.auth import Authenticator, ClientAddresses, Credentials
from service.compaction import TokenEstimator
from service.config import Config
from service.configmcp import McpServerConfig
from service.configview import describe_config
from service.contract import load_contract
from service.gateway import Gateway, RunLimits
from service.identifiers import new_uuid
from service.images import check_images, image_client
from service.loginlimits import SharedFailureLimiter
from service.models import ModelCatalog
from service.public_addresses import AddressPolicy
from service.public_http import PublicHttpClient
from service.retries import RetryPolicy
from service.rpc.broadcasts import Broadcasts
from service.rpc.door import RpcDoor
from service.rpc.handshake import Greeter
from service.rpc.hub import Hub, HubLimits
from service.rpc.method import Desk, Methods
from service.rpc.methods import ROWS
from service.rpc.starts import Starts
from service.runs import RunRegistry
from service.sessions.state import State
from service.sessions.store import SessionStore
from service.slots import RunSlots
from service.state.logins import LoginFailures
from service.state.opening import open_database
from service.tools.files import file_tools
from service.tools.mcp import McpServers
from service.tools.mcp_server import McpEndpoint
from service.tools.search import search_tools
from service.tools.sessions import session_tools
from service.tools.shell import ExecTool
from service.tools.toolboxes import Toolboxes
from service.tools.web import WebFetchTool


def open_gateway(config: Config, state_dir: Path, environ: Mapping[str, str]) -> Gateway:
    """The Gateway of `config`, which the caller closes; its state is under `state_dir`, or where `state.url` says.

    `environ` has keys of known model hosts, proxies and trusted certificates, and where the database is.

    Raises `StoreError` when the transcripts cannot be opened. No model is contacted or started yet.
    """
    clock, new_id = time.time, new_uuid
    state = State(open_database(_state_url(config, environ), state_dir), clock=clock, new_id=new_id)
    state.membership.join()
    roster = Roster.from_config(config)
    images = config.gateway.http.endpoints.chat_completions.images
    return Gateway(
        roster,
        ModelCatalog(config, state_dir, environ),
        state,
        open_toolboxes(config, roster, state.store, state_dir, environ),
        partial(check_images, config=images, client=image_client(images)),
        runs=RunRegistry(clock),
        slots=RunSlots(config.agents.defaults.max_concurrent),
        limits=RunLimits(config.agents.defaults.max_turns, RetryPolicy.from_config(config.models.retry)),
        estimator=TokenEstimator(),
        clock=clock,
        new_id=new_id,
    )


def _state_url(config: Config, environ: Mapping[str, str]) -> str | None:
    if config.state.url is not None:
        return config.state.url.get_secret_value()
    return environ.get("OPENCLAW_STATE_URL") or None


def open_toolboxes(
    config: Config, roster: Roster, store: SessionStore, state_dir: Path, environ: Mapping[str, str]
) -> Toolboxes:
    """Each agent's tools. MCP servers are started when an agent that may use them runs."""
    web = WebFetchTool(PublicHttpClient(AddressPolicy()), new_uuid)
    sessions = session_tools(store, roster, config.tools.sessions.visibility)
    endpoints = [_to_endpoint(name, server) for name, server in config.mcp.servers.items()]
    return Toolboxes(
        config,
        roster,
        in_workspace=(*file_tools(), *search_tools(), ExecTool(environ)),
        anywhere=(web, *sessions),
        mcp=McpServers(endpoints, state_dir / "logs"),
    )


def _to_endpoint(name: str, server: McpServerConfig) -> McpEndpoint:
    return McpEndpoint(
        name,
        command=server.command,
        args=server.args,
        env=server.env,
        cwd=None if server.cwd is None else str(server.cwd),
        url=server.url,
        headers=server.headers,
        timeout_seconds=server.timeout_seconds,
        allow=server.tools.allow,
        deny=server.tools.deny,
    )


def build_app(
    config: Config, credentials: Credentials, gateway: Gateway, config_path: Path | None = None
) -> flask.Flask:
    """The HTTP and WebSocket doors to `gateway`; `extensions["rpc"]` is the hub of the latter's connections."""
    authenticated = credentials.mode != "none"
    failures, others = LoginFailures(gateway.state.database), gateway.state.membership
    limiter = SharedFailureLimiter(
        config.gateway.auth.rate_limit, failures, has_others=lambda: others.has_others, clock=time.time
    )
    door = Door(
        gateway=gateway,
        document=load_contract(authenticated=authenticated),
        authenticator=Authenticator(credentials, limiter) if authenticated else None,
        addresses=ClientAddresses(config.gateway.trusted_proxies),
        completions_enabled=config.gateway.http.endpoints.chat_completions.enabled,
    )
    app = create_app(door)
    add_rpc_door(app, door, config.gateway.control_ui.allowed_origins, partial(describe_config, config, config_path))
    return app


def add_rpc_door(
    app: flask.Flask, door: Door, allowed_origins: tuple[str, ...], describe: Callable[[], dict[str, Any]]
) -> None:
    """Let WebSockets in beside the HTTP door; `describe` gives the configuration without its secrets."""
    clock, gateway = time.time, door.gateway
    limits = HubLimits()
    hub = Hub(limits, clock)
    broadcasts = Broadcasts(hub, clock)
    methods = Methods(Desk(gateway, Starts(gateway, clock), hub, broadcasts, describe, clock), ROWS)
    greeter = Greeter(gateway, door.authenticator, tuple(methods.names), limits.tick_seconds, clock, new_uuid)
    gateway.runs.subscribe(broadcasts)
    app.extensions["rpc"] = hub
    app.wsgi_app = RpcDoor(  # type: ignore[method-assign]  # Flask's own way to put something in front
        app.wsgi_app,
        hub=hub,
        greeter=greeter,
        methods=methods,
        addresses=door.addresses,
        check_hosts=door.authenticator is None,
        allowed_origins=allowed_origins,
    )
