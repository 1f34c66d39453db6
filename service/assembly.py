"""The composition root: builds every part from the configuration and wires them together."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import flask

from service.agents import Roster
from service.app import Door, create_app
from service.auth import Authenticator, ClientAddresses, Credentials, FailureLimiter
from service.config import Config, ToolsConfig
from service.contract import load_contract
from service.gateway import Gateway, RunLimits
from service.images import check_images, image_client
from service.models import ModelCatalog
from service.public_addresses import AddressPolicy
from service.public_http import PublicHttpClient
from service.retries import RetryPolicy
from service.sessions.lanes import Lanes
from service.sessions.store import SessionStore
from service.slots import RunSlots
from service.tools.files import file_tools
from service.tools.policy import allowed_tools
from service.tools.search import search_tools
from service.tools.sessions import session_tools
from service.tools.shell import ExecTool
from service.tools.toolbox import Toolbox
from service.tools.web import WebFetchTool


def open_gateway(config: Config, state_dir: Path, environ: Mapping[str, str]) -> Gateway:
    """The Gateway of `config`, with its transcripts under `state_dir`. The caller closes it.

    `environ` has keys of known model hosts, proxies and trusted certificates.

    Raises `StoreError` when the transcripts cannot be opened. No model is contacted or started yet.
    """
    store = SessionStore.open(state_dir / "sessions.sqlite")
    roster = Roster.from_config(config)
    images = config.gateway.http.endpoints.chat_completions.images
    return Gateway(
        roster,
        ModelCatalog(config, state_dir, environ),
        store,
        build_toolboxes(config, roster, store, environ),
        partial(check_images, config=images, client=image_client(images)),
        lanes=Lanes(),
        slots=RunSlots(config.agents.defaults.max_concurrent),
        limits=RunLimits(config.agents.defaults.max_turns, RetryPolicy.from_config(config.models.retry)),
        clock=time.time,
        new_id=lambda: str(uuid.uuid4()),
    )


def build_toolboxes(
    config: Config, roster: Roster, store: SessionStore, environ: Mapping[str, str]
) -> dict[str, Toolbox]:
    """Each agent's tools, by its id: what its policy allows; what works in a workspace only where there is one."""
    in_workspace = (*file_tools(), *search_tools(), ExecTool(environ))
    web = WebFetchTool(PublicHttpClient(AddressPolicy()), lambda: str(uuid.uuid4()))
    anywhere = (web, *session_tools(store, roster, config.tools.sessions.visibility))
    toolboxes = {}
    for agent in roster.agents:
        tools = {tool.name: tool for tool in (*(in_workspace if agent.workspace else ()), *anywhere)}
        agent_tools = config.agents.roster[agent.id].tools if agent.id in config.agents.roster else ToolsConfig()
        allowed = allowed_tools(config.tools, agent_tools, tools)
        toolboxes[agent.id] = Toolbox(tools[name] for name in allowed)
    return toolboxes


def build_app(config: Config, credentials: Credentials, gateway: Gateway) -> flask.Flask:
    """The HTTP door to `gateway`."""
    authenticated = credentials.mode != "none"
    limiter = FailureLimiter(config.gateway.auth.rate_limit, time.monotonic)
    door = Door(
        gateway=gateway,
        document=load_contract(authenticated=authenticated),
        authenticator=Authenticator(credentials, limiter) if authenticated else None,
        addresses=ClientAddresses(config.gateway.trusted_proxies),
        completions_enabled=config.gateway.http.endpoints.chat_completions.enabled,
    )
    return create_app(door)
