"""The door to a Gateway, as the configuration wants it: who may come in, and what is open."""

from __future__ import annotations

import time

from service.app import Door
from service.auth import Authenticator, ClientAddresses, Credentials, FailureLimiter
from service.config import Config
from service.contract import load_contract
from service.gateway import Gateway


def open_door(config: Config, credentials: Credentials, gateway: Gateway) -> Door:
    """The HTTP door to `gateway`; `create_app` makes an application of it."""
    authenticated = credentials.mode != "none"
    limiter = FailureLimiter(config.gateway.auth.rate_limit, time.monotonic)
    return Door(
        gateway=gateway,
        document=load_contract(authenticated=authenticated),
        authenticator=Authenticator(credentials, limiter) if authenticated else None,
        addresses=ClientAddresses(config.gateway.trusted_proxies),
        completions_enabled=config.gateway.http.endpoints.chat_completions.enabled,
    )


def reconfigure_door(door: Door, config: Config, credentials: Credentials) -> None:
    """Have `door` follow another configuration from the next request on; whether there is authentication stays."""
    if door.authenticator is not None:
        door.authenticator.reconfigure(credentials, config.gateway.auth.rate_limit)
    door.addresses.reconfigure(config.gateway.trusted_proxies)
    door.completions_enabled = config.gateway.http.endpoints.chat_completions.enabled
