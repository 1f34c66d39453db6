"""Settings of the HTTP and WebSocket APIs: an immutable snapshot of the configuration, replaced as a whole."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import field
from typing import Any

from service.api.auth import Authenticator, is_named_key
from service.api.client_address import ClientAddresses, check_origin
from service.api.proxy_users import ProxyUsers
from service.config.schema import Config
from service.core.dataclass import record
from service.core.principal import Principal


@record
class ApiSettings:
    """The configuration in force as the APIs use it.

    `authenticator` is None when no authentication is configured; then only loopback host names are served.
    `allowed_origins` are the origins, in lower case, whose pages may open a WebSocket and, without authentication, send
    requests; `cors_origins` are those whose pages may read the responses of the HTTP API. `enabled_endpoints` are the
    names of the switchable endpoints that are on, as the contract has them in `x-endpoint`. `proxy_users` are those
    whom a trusted proxy authenticates, if `gateway.auth.mode` says so.
    """

    config: Config = field(repr=False)
    authenticator: Authenticator | None
    addresses: ClientAddresses
    allowed_origins: frozenset[str]
    cors_origins: frozenset[str]
    enabled_endpoints: frozenset[str]
    proxy_users: ProxyUsers | None = None

    @classmethod
    def build(cls, config: Config, authenticator: Authenticator | None) -> ApiSettings:
        """Derive the settings from a configuration."""
        gateway = config.gateway
        addresses = ClientAddresses(gateway.trusted_proxies, gateway.trusted_proxy_header)
        by_proxy = gateway.auth.trusted_proxy if gateway.auth.mode == "trusted-proxy" else None
        return cls(
            config,
            authenticator,
            addresses,
            frozenset(origin.lower() for origin in gateway.control_ui.allowed_origins),
            frozenset(gateway.http.cors.allowed_origins),
            gateway.http.endpoints.enabled | ({"controlUi"} if gateway.control_ui.enabled else set()),
            None if by_proxy is None else ProxyUsers(by_proxy, addresses),
        )

    def find_user(self, environ: Mapping[str, Any], origins: Collection[str]) -> Principal | None:
        """Return the user whom a trusted proxy names, unless the request has an API key, which is checked instead.

        Browsers send the credentials for the proxy on behalf of any page: foreign origins that are not among `origins`
        are refused. Raises the errors of `ProxyUsers.identify` and of `check_origin`.
        """
        if self.proxy_users is None:
            return None
        user = self.proxy_users.identify(environ)
        if user is None or is_named_key(environ.get("HTTP_AUTHORIZATION")):
            return None
        check_origin(environ, origins)
        return user

    def renew(self, principal: Principal) -> Principal | None:
        """Return a caller that was authenticated earlier as it is now, `None` if it would not be any more."""
        if principal.user is not None:
            is_allowed = self.proxy_users is not None and self.proxy_users.allows(principal.user)
            return principal if is_allowed else None
        return principal if self.authenticator is None else self.authenticator.renew(principal)


class SettingsSlot:
    """Holds the settings in force. A request reads `current` once and keeps what it got."""

    def __init__(self, current: ApiSettings) -> None:
        self.current = current
