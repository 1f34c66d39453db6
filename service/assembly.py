"""The composition root: builds every part from the configuration and wires them together."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import flask

from service.agents import Roster
from service.app import Door, create_app
from service.auth import Authenticator, ClientAddresses, Credentials, FailureLimiter
from service.config import Config
from service.contract import load_contract
from service.gateway import Gateway
from service.models import ModelCatalog
from service.sessions.lanes import Lanes
from service.sessions.store import SessionStore


def open_gateway(config: Config, state_dir: Path) -> Gateway:
    """The Gateway of `config`, with its transcripts under `state_dir`. The caller closes it.

    Raises `StoreError` when the transcripts cannot be opened. No model is contacted or started yet.
    """
    store = SessionStore.open(state_dir / "sessions.sqlite")
    catalog = ModelCatalog(config, state_dir)
    return Gateway(
        Roster.from_config(config), catalog, store, Lanes(), clock=time.time, new_id=lambda: str(uuid.uuid4())
    )


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
