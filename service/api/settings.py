"""Settings of the HTTP and WebSocket APIs: an immutable snapshot of the configuration, replaced as a whole."""

from __future__ import annotations

from dataclasses import field

from service.api.auth import Authenticator
from service.api.client_address import ClientAddresses
from service.config.schema import Config
from service.core.dataclass import record


@record
class ApiSettings:
    """The configuration in force as the APIs use it.

    `authenticator` is None when no authentication is configured; then only loopback host names are served.
    `allowed_origins` are the origins, in lower case, whose pages may open a WebSocket and, without authentication, send
    requests; `cors_origins` are those whose pages may read the responses of the HTTP API. `enabled_endpoints` are the
    names of the switchable endpoints that are on, as the contract has them in `x-endpoint`.
    """

    config: Config = field(repr=False)
    authenticator: Authenticator | None
    addresses: ClientAddresses
    allowed_origins: frozenset[str]
    cors_origins: frozenset[str]
    enabled_endpoints: frozenset[str]

    @classmethod
    def build(cls, config: Config, authenticator: Authenticator | None) -> ApiSettings:
        """Derive the settings from a configuration."""
        return cls(
            config,
            authenticator,
            ClientAddresses(config.gateway.trusted_proxies, config.gateway.trusted_proxy_header),
            frozenset(origin.lower() for origin in config.gateway.control_ui.allowed_origins),
            frozenset(config.gateway.http.cors.allowed_origins),
            config.gateway.http.endpoints.enabled,
        )


class SettingsSlot:
    """Holds the settings in force. A request reads `current` once and keeps what it got."""

    def __init__(self, current: ApiSettings) -> None:
        self.current = current
